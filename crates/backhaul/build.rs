//! How the allocator of glibc is set (docs/decisions/0014).

fn main() {
    println!("cargo:rerun-if-changed=src/allocator.c");
    // With the object and not with a library, of which the linker would take nothing: nobody calls it.
    for object in cc::Build::new().file("src/allocator.c").compile_intermediates() {
        println!("cargo:rustc-link-arg-bins={}", object.display());
    }
}

//! Lookups, listings and walks.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use super::*;
use crate::dump::dump_file;
use crate::find::{Pattern, find};
use crate::restore::tests::{Item, Source, dir};
use backhaul_object::entry::Content;

fn file() -> Item {
    Item::File(Content::Inline(b"x".to_vec()), 1, None)
}

fn sample() -> (Source, ObjectId) {
    let mut source = Source::new();
    let many = (0..5_000).map(|i| (format!("file-with-a-long-name-{i:05}.txt").into_bytes(), file()));
    let docs = dir([(b"notes.md", file()), (b"notes.txt", file()), (b"\xffraw", file())]);
    let ana =
        dir([(b"docs", Item::Dir(docs)), (b"many", Item::Dir(many.collect())), (b"x", Item::Link(b"y"))]);
    let root = source
        .tree(dir([(b"etc", Item::Dir(dir([]))), (b"home", Item::Dir(dir([(b"ana", Item::Dir(ana))])))]));
    (source, root)
}

#[test]
fn lookups() {
    let (source, root) = sample();
    let tree = Tree::new(&source, root);
    assert_eq!(tree.lookup(b"/").unwrap(), Located::Root);
    for path in [&b"/home/ana/docs/notes.md"[..], b"home/ana//docs/./\xffraw", b"/home/ana/x", b"etc"] {
        assert!(matches!(tree.lookup(path).unwrap(), Located::Entry(_)));
    }
    for i in [0, 1, 2_499, 4_999] {
        let path = format!("/home/ana/many/file-with-a-long-name-{i:05}.txt");
        let Located::Entry(entry) = tree.lookup(path.as_bytes()).unwrap() else { panic!("not an entry") };
        let mut out = Vec::new();
        assert_eq!(dump_file(&source, &entry, &mut out).unwrap(), 1);
        assert_eq!(out, b"x");
    }
    let Err(BrowseError::NotFound { parent, similar, .. }) = tree.lookup(b"/home/ana/docs/note.md") else {
        panic!("found")
    };
    assert_eq!(parent, b"/home/ana/docs");
    assert_eq!(similar, [b"notes.md".to_vec()]);
    let error = tree.lookup(b"/hme/x").unwrap_err();
    assert_eq!(error.to_string(), "/hme/x is not in the snapshot: did you mean /home?");
    assert!(matches!(tree.lookup(b"/home/ana/x/y"), Err(BrowseError::NotADirectory { .. })));
}

#[test]
fn lists_and_walks_are_in_order() {
    let (source, root) = sample();
    let tree = Tree::new(&source, root);
    let many = tree.list(&tree.lookup(b"/home/ana/many").unwrap()).unwrap();
    assert_eq!(many.len(), 5_000);
    assert!(many.is_sorted_by(|a, b| a.name < b.name));
    let mut paths = Vec::new();
    tree.walk(b"home/ana", &mut |path, _| {
        paths.push(path.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(paths.len(), 5_006);
    assert_eq!(paths[0], b"/home/ana/docs");
    assert_eq!(paths[1], b"/home/ana/docs/notes.md");
    assert_eq!(paths.last().unwrap(), b"/home/ana/x");
    let mut found = Vec::new();
    find(&tree, b"/", &Pattern::new(b"*9999.txt"), &mut |_, _| panic!("none")).unwrap();
    find(&tree, b"/", &Pattern::new(b"*4999.txt"), &mut |path, _| {
        found.push(path.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(found, [b"/home/ana/many/file-with-a-long-name-04999.txt".to_vec()]);
    let mut one = Vec::new();
    tree.walk(b"/home/ana/docs/notes.md", &mut |path, _| {
        one.push(path.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(one, [b"/home/ana/docs/notes.md".to_vec()]);
}

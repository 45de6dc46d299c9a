//! What `check --repair` does to a vault that nobody has open, by the same means of the store.

use std::path::Path;

use backhaul_object::Sealed;
use backhaul_object::keys::VaultKey;
use backhaul_object::seal::Unpacker;
use backhaul_server::export::look::look;
use backhaul_store::check::{Depth, Go, Mending, Part, Report, Request, Selection};
use backhaul_store::{StoreError, Vault, rebuild, repair};

use crate::local::key;

/// A vault that asks, as one of a server does, whoever has the key what an object is worth that comes from a manifest.
pub(crate) fn keyed(vault: Vault, key: &VaultKey) -> Vault {
    let (id_key, data_key) = (key.id_key(), key.data_key());
    let open =
        move |sealed: &Sealed| sealed.unseal(&data_key)?.open(&id_key, &mut Unpacker::new()?).map(drop);
    vault.verify_with(Box::new(move |sealed| open(sealed).map_err(|why| why.to_string())));
    vault
}

/// Reads every byte, and the exports as the server does.
///
/// # Errors
/// The check could not be made.
pub fn check(vault: &Vault, mending: Mending) -> Result<Report, StoreError> {
    let request = Request { depth: Depth::ReadData(Selection::All), mending, now: 77 };
    let mut report = vault.check(&request, None, &|_| Go::On)?;
    report.damage.extend(look(vault, mending, request.now)?.0);
    Ok(report)
}

fn needs_rebuild(report: &Report) -> bool {
    let is_cache = |part: &Part| match part {
        Part::Index => true,
        Part::File(name) => name == "catalog.sqlite" || name.starts_with("packs/"),
        _ => false,
    };
    report.damage.iter().any(|damage| damage.mended.is_none() && is_cache(&damage.what))
}

/// Mends what can be mended, and makes catalog and index anew where that is called for; the vault is then open.
///
/// # Errors
/// It cannot be done.
pub fn mend(root: &Path) -> Result<(Report, Vault), StoreError> {
    repair::restore_descriptor(root, 78)?;
    let rebuild = || rebuild::rebuild(root, [2; 16], Mending::Mend, 79);
    let open = || Vault::open(root).map(|vault| keyed(vault, &key()));
    let vault = match open() {
        Ok(vault) => vault,
        Err(_) => {
            rebuild()?;
            open()?
        }
    };
    match check(&vault, Mending::Mend) {
        Ok(report) if !needs_rebuild(&report) => return Ok((report, vault)),
        _ => {}
    }
    drop(vault);
    rebuild()?;
    let vault = open()?;
    check(&vault, Mending::Mend).map(|report| (report, vault))
}

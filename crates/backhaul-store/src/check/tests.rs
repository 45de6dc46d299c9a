//! A check beside others, step by step.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use backhaul_object::{Kind, Sealed};

use super::{Depth, Go, Mending, Report, Request, Selection};
use crate::error::StoreError;
use crate::mark::{NIGHT, State};
use crate::pack::HEAD_LEN;
use crate::reclaim::{self, Step, Watch};
use crate::tests::{ANA, Tampered, create, sealed, snapshot};
use crate::vault::{Marking, Vault};

const NOW: u64 = 1_700_000_000;

/// When a pass of reclaim has let go of what is ripe, it waits until a check looks at it, and then goes on.
struct Beside<'a> {
    looks: &'a Receiver<()>,
    cleared: &'a Sender<()>,
    start: Option<Box<dyn FnOnce() + 'a>>,
}

impl Watch for Beside<'_> {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        match (step, self.start.take()) {
            (Step::LetGo, Some(start)) => {
                start();
                self.looks.recv_timeout(Duration::from_secs(20)).unwrap();
            }
            (Step::Cleared, _) => self.cleared.send(()).unwrap(),
            (_, start) => self.start = start,
        }
        Ok(())
    }
}

fn night(vault: &Vault, now: u64, watch: &mut dyn Watch) -> reclaim::Report {
    vault.count_night(now).unwrap();
    vault.reclaim(&reclaim::Request { now, ..reclaim::Request::default() }, watch).unwrap()
}

/// It was there when the check asked where it is, and is not any more when the check asks what it is called.
#[test]
fn what_goes_while_a_check_looks_at_it_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    let vault = create(&root);
    let chunks: Vec<Sealed> = (0..20).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    for (sequence, chunks) in (1..).zip(chunks.chunks(10)) {
        snapshot(&vault, sequence, chunks);
    }
    let forget = Marking { state: State::Forgotten, now: NOW, grace: 0, reason: "test" };
    vault.mark(ANA, 1, forget).unwrap();
    night(&vault, NOW + NIGHT, &mut ());
    // The first record of the first pack is among what was condemned.
    let pack = vault.sealed_packs().into_iter().find(|row| row.number == 1).unwrap();
    let blob = crate::vault::pack_blob(&pack.name.unwrap());
    drop(vault);

    let ((look, looks), (clear, cleared)) = (channel(), channel());
    let at_record = Arc::new(Mutex::new(None));
    let armed = Arc::clone(&at_record);
    let before_read = move |name: &str, offset: u64, _: usize| {
        if name == blob
            && offset == HEAD_LEN as u64
            && let Some(wait) = armed.lock().unwrap().take()
        {
            let (look, cleared): (Sender<()>, Receiver<()>) = wait;
            look.send(()).unwrap();
            cleared.recv_timeout(Duration::from_secs(20)).unwrap();
        }
        Ok(())
    };
    let vault = Tampered::open(&root, Box::new(before_read), Box::new(|_| {}));
    let check = || -> Report {
        let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Look, now: NOW };
        vault.check(&request, None, &|_| Go::On).unwrap()
    };
    thread::scope(|scope| {
        let (report, reported) = channel();
        let start: Box<dyn FnOnce()> = Box::new(|| {
            *at_record.lock().unwrap() = Some((look, cleared));
            scope.spawn(move || report.send(check()).unwrap());
        });
        let mut beside = Beside { looks: &looks, cleared: &clear, start: Some(start) };
        let pass = night(&vault, NOW + 2 * NIGHT, &mut beside);
        assert!(pass.objects >= 10, "{pass:?}");
        let report = reported.recv().unwrap();
        assert!(report.is_sound() && report.damage.is_empty(), "{:?}", report.damage);
    });
}

/// A row says that the snapshot is somebody else's, whose manifest there is not: what is there is all that is left of it.
#[test]
fn a_manifest_is_not_put_aside_for_a_row_that_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    let vault = create(&root);
    snapshot(&vault, 1, &[sealed(Kind::Chunk, &[], 1)]);
    let row = vault.snapshots(None).unwrap().remove(0);
    let wrong = crate::catalog::SnapshotRow { sequence: 5, ..row.clone() };
    vault.state().catalog.remove_snapshot(row.client, row.sequence).unwrap();
    vault.state().catalog.put_back(&wrong).unwrap();
    let request = Request { depth: Depth::Structure, mending: Mending::Mend, now: NOW };
    let report = vault.check(&request, None, &|_| Go::On).unwrap();
    assert!(!report.is_sound(), "{:?}", report.damage);
    let name = crate::manifest::manifest_name(row.client, row.sequence);
    assert!(root.join(&name).exists() && root.join(crate::manifest::copy_name(&name)).exists());
}

//! What a hostile client gets that asks for objects by id: only its own.

use std::fs;

use backhaul_agent::Remote;
use backhaul_agent::home::AgentHome;
use backhaul_agent::remote::Which;
use backhaul_agent::run::dial;
use backhaul_agent::ways::Ways;
use backhaul_archive::browse::{Located, Tree};
use backhaul_object::entry::{Body, Content};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{ObjectId, Reference};
use backhaul_tests::{Home, TestServer, trees};

async fn session(home: &Home) -> Remote {
    let agent = AgentHome::at(home.path());
    let link = dial(&agent.config().unwrap().servers, &agent.agent().unwrap()).await.unwrap();
    Remote::browse(link, "", &Ways::default()).await.unwrap()
}

/// The bundle and member number of a small file.
fn place(remote: &Remote, root: ObjectId, path: &str) -> (ObjectId, usize) {
    match Tree::new(remote, root).lookup(path.as_bytes()).unwrap() {
        Located::Entry(entry) => match entry.body {
            Body::File { content: Content::Member { bundle, member }, .. } => (bundle, usize::from(member)),
            other => panic!("{other:?}"),
        },
        Located::Root => panic!("the root"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn knowing_an_id_is_not_enough_and_a_shared_bundle_shows_only_the_shared_member() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (anas, beas) = (dir.path().join("ana"), dir.path().join("bea"));
    fs::create_dir(&anas).unwrap();
    fs::create_dir(&beas).unwrap();
    for i in 0..20 {
        fs::write(anas.join(format!("{i:02}")), trees::noise(4_000, i)).unwrap();
    }
    fs::write(beas.join("same"), trees::noise(4_000, 7)).unwrap();
    let (ana, bea) = (server.client("ana", &[&anas]), server.client("bea", &[&beas]));
    ana.run(&["backup"]).ok();
    bea.run(&["backup"]).ok();
    let (of_ana, of_bea) = (session(&ana).await, session(&bea).await);
    tokio::task::block_in_place(|| {
        let ana_root = of_ana.snapshots(Which::Listed).unwrap()[0].manifest.root;
        let bea_root = of_bea.snapshots(Which::Listed).unwrap()[0].manifest.root;
        let (bundle, member) = place(&of_ana, ana_root, &format!("{}/07", anas.display()));
        assert_eq!(
            place(&of_bea, bea_root, &format!("{}/same", beas.display())),
            (bundle, member),
            "deduplicated"
        );

        for secret in [ana_root, of_ana.snapshots(Which::Listed).unwrap()[0].id] {
            assert!(of_ana.read(&[secret]).is_ok());
            assert!(matches!(of_bea.read(&[secret]), Err(TransferError::NotFound(id)) if id == secret));
        }
        // Where another's objects lie is not told: they are last, like what is nowhere, in the order of the question.
        let nowhere = ObjectId([1; 32]);
        assert_eq!(of_bea.arrange(&[ana_root, nowhere, bundle]).unwrap(), [2, 0, 1]);
        assert_eq!(of_ana.arrange(&[nowhere, ana_root]).unwrap(), [1, 0]);
        let whole = backhaul_object::bundle::members(&of_ana.read(&[bundle]).unwrap()[0]).unwrap();
        assert!(whole.iter().all(Option::is_some));
        let object = &of_bea.read(&[bundle]).unwrap()[0];
        let part = backhaul_object::bundle::members(object).unwrap();
        for (number, content) in part.iter().enumerate() {
            assert_eq!(content.is_some(), number == member, "member {number}");
            assert_eq!(object.provides[number].1.0 == [0; 16], number != member, "proof {number}");
        }

        // Asking for members changes nothing of whose they are: of one's own only those come that are wanted.
        let marked = |numbers: std::ops::Range<usize>| {
            let mut wanted = Reference::whole(bundle);
            numbers.for_each(|number| wanted.use_member(number));
            wanted
        };
        let there = |remote: &Remote, wanted: Reference| -> Vec<usize> {
            let object = remote.read_parts(&[wanted]).unwrap().pop().unwrap();
            let members = backhaul_object::bundle::members(&object).unwrap();
            (0..members.len()).filter(|number| members[*number].is_some()).collect()
        };
        assert_eq!(there(&of_ana, marked(3..6)), [3, 4, 5]);
        assert_eq!(there(&of_bea, marked(0..20)), [member]);
        let other = if member == 0 { 1..2 } else { 0..1 };
        assert!(there(&of_bea, marked(other)).is_empty());
        for remote in [&of_ana, &of_bea] {
            // Who wants none is told the ids, and no proofs.
            let none = remote.read_parts(&[Reference::to_none_of(bundle)]).unwrap().pop().unwrap();
            let ids: Vec<_> = none.provides.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, object.provides.iter().map(|(id, _)| *id).collect::<Vec<_>>());
            assert!(none.provides.iter().all(|(_, proof)| proof.0 == [0; 16]));
            assert!(backhaul_object::bundle::members(&none).unwrap().iter().all(Option::is_none));
        }
    });
    of_ana.close().await;
    of_bea.close().await;
}

//! Objects from one end of a connection to the other, over loopback.

use std::time::{SystemTime, UNIX_EPOCH};

use backhaul_net::Role;
use backhaul_net::authority::Authority;
use backhaul_net::endpoint::{Accepted, Listener, dial_server};
use backhaul_net::link::Arrived;
use backhaul_net::transport::Use;
use backhaul_object::Compressed;

/// Sends everything; returns how many objects have arrived.
pub fn carry(objects: &[Compressed]) -> usize {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let authority = Authority::create(now).unwrap();
        let own = authority.issue_own(Role::Server, "server", now).unwrap();
        let agent = authority.issue_own(Role::Agent, "bench", now).unwrap();
        let listener = Listener::server("127.0.0.1:0".parse().unwrap(), &own, &[7; 32]).unwrap();
        let address = listener.address().unwrap().to_string();
        let accept = async {
            match listener.accept().await.unwrap().establish().await.unwrap() {
                Accepted::Session(link) => link,
                Accepted::Join(_) => panic!("a session was expected"),
            }
        };
        let (dialled, accepted) = tokio::join!(dial_server(&address, &agent, Use::Work), accept);
        let (_w, _r, out) = dialled.unwrap().split();
        let (_w2, _r2, into) = accepted.split();
        into.admit(32 << 20);
        let send = async {
            let mut writer = out.open().await.unwrap();
            for object in objects {
                writer.send(object).await.unwrap();
            }
        };
        let receive = async {
            let mut reader = into.accept().await.unwrap();
            let mut arrived = 0;
            while arrived < objects.len() {
                let Some(Arrived::Object(_)) = reader.next().await.unwrap() else {
                    panic!("an object was expected")
                };
                arrived += 1;
            }
            arrived
        };
        tokio::join!(send, receive).1
    })
}

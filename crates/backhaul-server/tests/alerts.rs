//! Alerts reach people: through real sockets and processes, over refusals and crashes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use backhaul_object::ids::ClientId;
use backhaul_server::alerts::config::{Config, Mail, Webhook};
use backhaul_server::alerts::post::{Channel, Post, Route};
use backhaul_server::alerts::{Alert, AlertKind, Courier, What};
use backhaul_server::clock;
use backhaul_server::fleet::{Delivery, DeliveryState, Fleet, Initiator, Terms, Which};
use backhaul_tests::listeners::{MailServer, Manners, WebServer};

const NOW: u64 = 1_764_000_000;

struct Scene {
    dir: tempfile::TempDir,
    fleet: Fleet,
    client: ClientId,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut fleet = Fleet::open(&dir.path().join("fleet.sqlite")).unwrap();
        let terms = Terms {
            initiator: Initiator::CLIENT,
            address: None,
            vault: "main".to_owned(),
            policy: "default".to_owned(),
            owner: Some("ana@example.org".to_owned()),
        };
        fleet.add("laptop-7", &terms, NOW).unwrap();
        let client = fleet.client("laptop-7").unwrap().unwrap().id;
        Self { dir, fleet, client }
    }

    fn alert(&self, kind: AlertKind) -> Alert {
        let client = Some(self.client);
        Alert {
            kind,
            client,
            group: None,
            text: "nothing new for 3 days".to_owned(),
            obstacle: "absent".to_owned(),
        }
    }

    fn courier(&self, config: Config) -> Courier {
        let fleet = Fleet::open(&self.dir.path().join("fleet.sqlite")).unwrap();
        Courier::with(fleet, Post::new(config, "backup.example.org".to_owned()))
    }

    /// Waits until the deliveries of all alerts are as they should be.
    async fn until(&self, what: &str, are: impl Fn(&[Delivery]) -> bool) -> Vec<Delivery> {
        for _ in 0..6_000 {
            let alerts = self.fleet.alerts(Which::All, 100).unwrap();
            let all: Vec<Delivery> =
                alerts.iter().rev().flat_map(|row| self.fleet.deliveries(row.id).unwrap()).collect();
            if are(&all) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("waited in vain until {what}: {:?}", self.fleet.alerts(Which::All, 100));
    }

    /// Lets the time of the next try come.
    fn hurry(&self) {
        let db = rusqlite::Connection::open(self.dir.path().join("fleet.sqlite")).unwrap();
        db.execute("UPDATE deliveries SET next_try_at = 0", []).unwrap();
    }
}

/// No file of our own is executed: another test that forks while it is written would hold it open
/// ("text file busy").
fn by_shell(text: &str, args: &[&str]) -> Vec<String> {
    ["/bin/sh", "-c", text, "notify"].iter().chain(args).map(|&word| word.to_owned()).collect()
}

fn by_mail(port: u16) -> Config {
    let mail = Mail {
        smtp: format!("smtp://127.0.0.1:{port}"),
        password_file: None,
        ca_file: None,
        from: "Backhaul <backhaul@example.org>".to_owned(),
        to: vec!["ops@example.org".to_owned()],
    };
    Config { mail: Some(mail), ..Config::default() }
}

fn sent(all: &[Delivery]) -> bool {
    !all.is_empty() && all.iter().all(|one| one.state == DeliveryState::Sent)
}

#[test]
fn an_alert_is_raised_once_reminded_of_and_cleared_once() {
    let mut scene = Scene::new();
    let overdue = scene.alert(AlertKind::Overdue);
    let id = scene.fleet.raise(&overdue, NOW).unwrap().unwrap();
    let later = Alert { obstacle: "on battery".to_owned(), ..overdue.clone() };
    assert_eq!(scene.fleet.raise(&later, NOW + 60).unwrap(), None, "it is open");
    assert!(scene.fleet.raise(&scene.alert(AlertKind::Failing), NOW).unwrap().is_some(), "another kind");
    let group = |name: &str| Alert { client: None, group: Some(name.to_owned()), ..overdue.clone() };
    assert!(scene.fleet.raise(&group("lab"), NOW).unwrap().is_some());
    assert!(scene.fleet.raise(&group("floor"), NOW).unwrap().is_some());
    let row = scene.fleet.alert(id).unwrap().unwrap();
    assert_eq!((row.raised_at, row.alert.obstacle.as_str()), (NOW, "on battery"), "the words are the newest");
    assert_eq!((row.client.as_deref(), row.announce), (Some("laptop-7"), Some(What::Raised)));

    assert!(scene.fleet.remind(&later).unwrap());
    assert_eq!(scene.fleet.alert(id).unwrap().unwrap().announce, Some(What::Raised), "nobody was told yet");
    scene.fleet.route(id, What::Raised, &[], NOW).unwrap();
    assert!(scene.fleet.remind(&later).unwrap());
    assert_eq!(scene.fleet.alert(id).unwrap().unwrap().announce, Some(What::Reminder));

    assert!(scene.fleet.clear(AlertKind::Overdue, Some(scene.client), None, NOW + 90).unwrap());
    assert!(
        !scene.fleet.clear(AlertKind::Overdue, Some(scene.client), None, NOW + 91).unwrap(),
        "it is over"
    );
    let row = scene.fleet.alert(id).unwrap().unwrap();
    assert_eq!((row.cleared_at, row.announce), (Some(NOW + 90), Some(What::Cleared)));
    assert!(!scene.fleet.remind(&later).unwrap(), "there is nothing to remind of");
    assert_eq!(scene.fleet.alerts(Which::Open, 10).unwrap().len(), 3);
    assert_eq!(scene.fleet.alerts(Which::All, 10).unwrap().len(), 4);
    assert_eq!(scene.fleet.alerts(Which::All, 2).unwrap().len(), 2);
    // A new episode is a new alert.
    assert!(scene.fleet.raise(&overdue, NOW + 200).unwrap().is_some_and(|new| new != id));
}

#[test]
fn what_nobody_was_told_of_needs_no_all_clear_and_newer_news_overtakes_older() {
    let mut scene = Scene::new();
    let failing = scene.alert(AlertKind::Failing);
    let id = scene.fleet.raise(&failing, NOW).unwrap().unwrap();
    assert!(scene.fleet.clear(AlertKind::Failing, Some(scene.client), None, NOW + 1).unwrap());
    assert!(scene.fleet.unrouted().unwrap().is_empty());
    assert_eq!(scene.fleet.alert(id).unwrap().unwrap().announce, None);

    let id = scene.fleet.raise(&failing, NOW + 2).unwrap().unwrap();
    let ops = Route { channel: Channel::Mail, recipient: "ops@example.org".to_owned() };
    scene.fleet.route(id, What::Raised, std::slice::from_ref(&ops), NOW + 2).unwrap();
    scene.fleet.clear(AlertKind::Failing, Some(scene.client), None, NOW + 3).unwrap();
    scene.fleet.route(id, What::Cleared, &[ops], NOW + 3).unwrap();
    let pending = scene.fleet.pending(NOW + 3, 10).unwrap();
    assert_eq!(pending.iter().map(|one| one.what).collect::<Vec<_>>(), [What::Cleared]);
}

#[test]
fn a_clock_that_was_set_back_holds_up_nothing_for_long() {
    let mut scene = Scene::new();
    let id = scene.fleet.raise(&scene.alert(AlertKind::Failing), NOW).unwrap().unwrap();
    let ops = Route { channel: Channel::Mail, recipient: "ops@example.org".to_owned() };
    scene.fleet.route(id, What::Raised, &[ops], NOW).unwrap();
    assert!(scene.fleet.pending(NOW - 30 * 86_400, 10).unwrap()[0].next_try_at <= NOW - 30 * 86_400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_arrives_though_the_server_refuses_at_first() {
    let (scene, server) = (Scene::new(), MailServer::start(Manners::Refuses(1)));
    let courier = scene.courier(by_mail(server.port));
    scene.fleet.raise(&scene.alert(AlertKind::Failing), clock::now()).unwrap();
    courier.wake();
    let tried = scene.until("it was tried", |all| all.iter().any(|one| one.tries == 1)).await;
    let (first, error) = (&tried[0], tried[0].error.clone().unwrap());
    assert_eq!(first.state, DeliveryState::Pending);
    assert!(error.contains("451") && error.contains("try again later"), "{error}");
    let wait = first.next_try_at - first.created_at;
    assert!((60..70).contains(&wait), "a minute: {wait}");
    assert!(server.mails().is_empty());
    scene.hurry();
    courier.wake();
    let told = scene.until("it is there", sent).await;
    assert_eq!((told[0].tries, told[0].error.as_deref(), server.calls()), (2, None, 2));
    let mails = server.mails();
    assert_eq!((mails.len(), mails[0].to.as_str()), (1, "ops@example.org"));
    for part in [
        "Subject: Backhaul: backups of laptop-7 fail",
        "From: Backhaul <backhaul@example.org>",
        "Auto-Submitted: auto-generated",
        "Message-ID: <backhaul.",
        "nothing new for 3 days",
        "backhaul client run laptop-7 --wait",
    ] {
        let text = mails[0].text.replace("\"Backhaul\"", "Backhaul");
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    courier.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_told_of_a_machine_that_stays_away_and_not_of_a_broken_backup() {
    let (scene, server) = (Scene::new(), MailServer::start(Manners::Kind));
    let courier = scene.courier(Config { owners: true, ..by_mail(server.port) });
    scene.fleet.raise(&scene.alert(AlertKind::Failing), clock::now()).unwrap();
    scene.fleet.raise(&scene.alert(AlertKind::Overdue), clock::now()).unwrap();
    courier.wake();
    scene.until("all are told", |all| all.len() == 3 && sent(all)).await;
    let mut mails = server.mails();
    mails.sort_by(|a, b| a.to.cmp(&b.to));
    assert_eq!(
        mails.iter().map(|mail| mail.to.as_str()).collect::<Vec<_>>()[..2],
        ["ana@example.org", "ops@example.org"]
    );
    assert!(mails[0].text.contains("Your computer laptop-7"), "{}", mails[0].text);
    scene.fleet.clear(AlertKind::Overdue, Some(scene.client), None, clock::now()).unwrap();
    courier.wake();
    scene.until("the all-clear is told", |all| all.len() == 5 && sent(all)).await;
    assert!(server.mails().iter().any(|mail| mail.text.contains("laptop-7 is protected again")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_a_command_get_the_document() {
    let (scene, web) = (Scene::new(), WebServer::start("204 No Content"));
    let out = scene.dir.path().join("out");
    let script =
        "cat > \"$1\"; echo \" $BACKHAUL_ALERT_KIND/$BACKHAUL_ALERT_CLIENT/$BACKHAUL_ALERT_WHAT\" >> \"$1\"";
    let config = Config {
        webhook: Some(Webhook {
            url: format!("http://127.0.0.1:{}/hooks/secret", web.port),
            header: [("Authorization".to_owned(), "Bearer t0ken".to_owned())].into(),
        }),
        command: by_shell(script, &[out.to_str().unwrap()]),
        ..Config::default()
    };
    let courier = scene.courier(config);
    scene.fleet.raise(&scene.alert(AlertKind::Lost), NOW).unwrap();
    courier.wake();
    let told = scene.until("both are told", sent).await;
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|one| !one.route.recipient.contains("secret")), "{told:?}");
    let request = &web.requests()[0];
    assert!(request.head.starts_with("post /hooks/secret http/1.1"), "{}", request.head);
    assert!(
        request.head.contains("authorization: bearer t0ken") && request.head.contains("application/json")
    );
    let document: serde_json::Value = serde_json::from_str(&request.body).unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/output/alert.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(backhaul_tests::misfit(&schema, &document, "alert"), None);
    assert_eq!((&document["kind"], &document["client"]), (&"lost".into(), &"laptop-7".into()));
    let written = std::fs::read_to_string(&out).unwrap();
    assert!(written.starts_with(&request.body) && written.ends_with("} lost/laptop-7/raised\n"), "{written}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_why_and_one_that_hangs_holds_up_no_other() {
    let (scene, mail, web) =
        (Scene::new(), MailServer::start(Manners::Silent), WebServer::start("302 Found"));
    let config = Config {
        webhook: Some(Webhook { url: format!("http://127.0.0.1:{}", web.port), header: Default::default() }),
        command: by_shell("echo no modem >&2; exit 7", &[]),
        ..by_mail(mail.port)
    };
    let courier = scene.courier(config);
    scene.fleet.raise(&scene.alert(AlertKind::StorageFull), clock::now()).unwrap();
    courier.wake();
    let tried =
        scene.until("two were tried", |all| all.iter().filter(|one| one.tries == 1).count() == 2).await;
    let why = |channel| tried.iter().find(|one| one.route.channel == channel).unwrap().error.clone();
    assert!(why(Channel::Webhook).unwrap().contains("302"), "{tried:?}");
    assert!(why(Channel::Command).unwrap().contains("exit status: 7: no modem"), "{tried:?}");
    assert_eq!(why(Channel::Mail), None, "that one is still under way");
    drop(courier);
    // The next server begins where this one was killed, with what its config says by then.
    let kind = MailServer::start(Manners::Kind);
    let _courier = scene.courier(by_mail(kind.port));
    scene.until("the mail is there", |all| all[0].state == DeliveryState::Sent).await;
    scene.hurry();
    _courier.wake();
    let given_up = |all: &[Delivery]| all[1..].iter().all(|one| one.state == DeliveryState::Failed);
    let told = scene.until("the others are given up", given_up).await;
    assert!(told[1].error.as_ref().unwrap().contains("no longer configured"), "{told:?}");
    assert_eq!(kind.mails().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_all_arrive_once() {
    let (scene, server) = (Scene::new(), MailServer::start(Manners::Kind));
    let courier = scene.courier(by_mail(server.port));
    for i in 0..40 {
        let group = Some(format!("lab-{i}"));
        let alert = Alert { client: None, group, ..scene.alert(AlertKind::GroupSilent) };
        scene.fleet.raise(&alert, clock::now()).unwrap();
    }
    courier.wake();
    scene.until("all are told", |all| all.len() == 40 && sent(all)).await;
    assert_eq!(server.mails().len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_all_clear_does_not_overtake_the_alarm() {
    let (scene, server) = (Scene::new(), MailServer::start(Manners::Silent));
    let courier = scene.courier(by_mail(server.port));
    scene.fleet.raise(&scene.alert(AlertKind::Failing), clock::now()).unwrap();
    courier.wake();
    scene.until("the alarm is under way", |_| server.calls() == 1).await;
    scene.fleet.clear(AlertKind::Failing, Some(scene.client), None, clock::now()).unwrap();
    courier.wake();
    scene.until("the all-clear is there", |all| all.len() == 2).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(server.calls(), 1, "it waits for the alarm to end");
}

//! Mail that needs TLS and a login, and what is said when it cannot be sent so.

use std::fs;
use std::path::Path;

use backhaul_tests::letterbox::{Exim, Letterbox, NAME, Speaks, USER};
use backhaul_tests::{Done, Home, wait_until};

/// Where a mail goes.
struct To<'t> {
    smtp: String,
    password: Option<&'t Path>,
    authority: Option<&'t Path>,
}

fn to(smtp: String) -> To<'static> {
    To { smtp, password: None, authority: None }
}

fn home() -> Home {
    let home = Home::new();
    home.run(&["server", "init", "--listen", "127.0.0.1:0", "--name", "backup.example.org"]).ok();
    home
}

/// What a test message through it comes to.
fn tried(home: &Home, to: &To<'_>) -> Done {
    let path = home.path().join("server/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let rest = config.split("[alerts.mail]").next().unwrap();
    let file =
        |key: &str, path: Option<&Path>| path.map(|path| format!("{key} = {path:?}\n")).unwrap_or_default();
    let mail = format!(
        "smtp = {:?}\n{}{}from = \"b@example.org\"\nto = [\"ops@example.org\"]\n",
        to.smtp,
        file("password_file", to.password),
        file("ca_file", to.authority),
    );
    fs::write(&path, format!("{rest}[alerts.mail]\n{mail}")).unwrap();
    home.run(&["alerts", "test"])
}

/// It fails, and says all of this.
fn fails(home: &Home, to: &To<'_>, words: &[&str]) {
    let said = tried(home, to).expect(1).out;
    assert!(
        said.contains("FAILED") && words.iter().all(|words| said.contains(words)),
        "{said}: not {words:?}"
    );
}

/// Somebody who is known to the mail server, as the config writes it.
fn user() -> String {
    USER.0.replace('@', "%40")
}

#[test]
fn a_password_goes_only_over_tls_to_whom_its_certificate_names() {
    let home = home();
    for (speaks, scheme) in [(Speaks::StartTls, "smtp"), (Speaks::Tls, "smtps")] {
        let there = Letterbox::start(speaks, true);
        let (password, authority) = (there.password(USER.1), there.authority());
        let smtp = format!("{scheme}://{}@{NAME}:{}", user(), there.port);
        let known = To { smtp: smtp.clone(), password: Some(&password), authority: Some(&authority) };
        let told = tried(&home, &known).ok();
        assert!(told.out.contains("ok: 250 taken"), "{}", told.out);
        assert!(there.taken()[0].starts_with("tls\n") && there.taken()[0].contains("Nothing is wrong"));
        let stranger = To { authority: None, ..known };
        fails(&home, &stranger, &["its certificate is of nobody who is known here", "ca_file = "]);
        let elsewhere = smtp.replace(NAME, "127.0.0.1");
        let by_number = To { smtp: elsewhere, password: Some(&password), authority: Some(&authority) };
        fails(&home, &by_number, &["its certificate is not for 127.0.0.1", "write the name that it is for"]);
        let other = Letterbox::start(Speaks::Tls, true);
        let of_another = other.authority();
        let wrong = To { smtp: smtp.clone(), password: Some(&password), authority: Some(&of_another) };
        fails(&home, &wrong, &["of nobody who is known here", "does not name the authority"]);
        let bad = there.password("wrong");
        let wrong = To { smtp, password: Some(&bad), authority: Some(&authority) };
        fails(&home, &wrong, &["535 5.7.8", USER.0, bad.to_str().unwrap(), "made for programs"]);
        assert_eq!(there.taken().len(), 1);
    }
}

#[test]
fn what_does_not_fit_the_mail_server_is_said_with_what_would() {
    let home = home();
    let (clear, wrapped) = (Letterbox::start(Speaks::Clear, false), Letterbox::start(Speaks::Tls, true));
    let start = Letterbox::start(Speaks::StartTls, true);
    let (password, authority) = (clear.password(USER.1), start.authority());
    let of = |scheme: &str, port: u16| format!("{scheme}://{}@{NAME}:{port}", user());
    let by_login = |smtp: String| To { smtp, password: Some(&password), authority: Some(&authority) };
    fails(&home, &by_login(of("smtp", clear.port)), &["STARTTLS is not supported", "not sent in the clear"]);
    let by_name = |scheme: &str, port: u16| to(format!("{scheme}://{NAME}:{port}"));
    fails(&home, &by_name("smtps", clear.port), &["does not speak TLS from the first byte", "smtp://"]);
    fails(&home, &by_name("smtp", start.port), &["530", "it may want a login: smtp://USER@HOST"]);
    fails(&home, &by_name("smtp", 1), &["nothing listens there"]);
    let open = Letterbox::start(Speaks::StartTls, false);
    let known = open.authority();
    let needless = To { smtp: of("smtp", open.port), password: Some(&password), authority: Some(&known) };
    fails(&home, &needless, &["takes no password on this connection", "leave USER@ out"]);
    let nothing = To { authority: Some(&password), ..by_login(of("smtp", start.port)) };
    fails(&home, &nothing, &["alerts.mail.ca_file", "no certificate"]);
    let nowhere =
        To { password: Some(Path::new("/nonexistent/password")), ..by_login(of("smtp", start.port)) };
    fails(&home, &nowhere, &["alerts.mail.password_file", "/nonexistent/password"]);
    assert!(clear.taken().is_empty() && wrapped.taken().is_empty() && start.taken().is_empty());
}

#[test]
fn where_nothing_is_secret_tls_is_taken_as_it_is_offered_unless_somebody_says_whose_it_is_to_be() {
    let home = home();
    let there = Letterbox::start(Speaks::StartTls, false);
    let smtp = format!("smtp://127.0.0.1:{}", there.port);
    tried(&home, &to(smtp.clone())).ok();
    assert!(there.taken()[0].starts_with("tls\n"), "{:?}", there.taken());
    let authority = there.authority();
    fails(&home, &To { authority: Some(&authority), ..to(smtp) }, &["its certificate is not for 127.0.0.1"]);
    let clear = Letterbox::start(Speaks::Clear, false);
    let smtp = format!("smtp://{NAME}:{}", clear.port);
    fails(&home, &To { authority: Some(&authority), ..to(smtp.clone()) }, &["STARTTLS", "leave ca_file out"]);
    tried(&home, &to(smtp)).ok();
    assert!(clear.taken()[0].starts_with("clear\n"));
}

#[test]
fn a_mail_server_of_somebody_elses_takes_mail_in_every_way_and_its_refusals_are_understood() {
    let Some(exim) = Exim::start() else { return };
    let (home, dir) = (home(), tempfile::tempdir().unwrap());
    let [start, wrapped, clear] = exim.ports;
    let (right, wrong) = (dir.path().join("right"), dir.path().join("wrong"));
    fs::write(&right, USER.1).unwrap();
    fs::write(&wrong, "wrong").unwrap();
    let by_login = |scheme: &str, port: u16, password| To {
        smtp: format!("{scheme}://{}@{NAME}:{port}", user()),
        password: Some(password),
        authority: Some(&exim.certificate),
    };
    tried(&home, &to(format!("smtp://{NAME}:{clear}"))).ok();
    tried(&home, &to(format!("smtp://{NAME}:{start}"))).ok();
    tried(&home, &by_login("smtp", start, &right)).ok();
    tried(&home, &by_login("smtps", wrapped, &right)).ok();
    for (scheme, port) in [("smtp", start), ("smtps", wrapped)] {
        fails(&home, &by_login(scheme, port, &wrong), &["535", USER.0, "wrong"]);
        let stranger = To { authority: None, ..by_login(scheme, port, &right) };
        fails(&home, &stranger, &["its certificate", "ca_file"]);
    }
    fails(&home, &by_login("smtp", clear, &right), &["STARTTLS is not supported", "not sent in the clear"]);
    fails(&home, &by_login("smtps", clear, &right), &["does not speak TLS from the first byte"]);
    wait_until("it has noted them", || exim.taken().len() == 4);
    let with = |words: &str| exim.taken().iter().filter(|mail| mail.contains(words)).count();
    assert_eq!((with("X=TLS1.3"), with(" A=plain ")), (3, 2), "{:?}", exim.taken());
}

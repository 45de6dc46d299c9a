//! A mail server on loopback that speaks TLS and wants a login, with a certificate of an authority of its own.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

/// When it speaks TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// From the first byte.
    Tls,
    /// Once it is asked to; a login is offered after that only.
    StartTls,
    /// Never; nor is a login offered.
    Clear,
}

/// The name that its certificate is for.
pub const NAME: &str = "localhost";
/// Whom it knows, and by which password.
pub const USER: (&str, &str) = ("ana@example.org", "correct horse");

/// A mail server that takes everything, if its caller is known where it speaks TLS.
pub struct Letterbox {
    /// Its TCP port.
    pub port: u16,
    dir: TempDir,
    taken: Arc<Mutex<Vec<String>>>,
}

impl Letterbox {
    /// Starts one; with a login where it speaks TLS, unless it asks nobody.
    pub fn start(speaks: Speaks, login: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (authority, certificate, key) = certificates();
        std::fs::write(dir.path().join("authority.pem"), authority).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        let (listener, config) = (TcpListener::bind("127.0.0.1:0").unwrap(), Arc::new(config));
        let (port, taken) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
        let here = Self { port, dir, taken: Arc::clone(&taken) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, taken) = (Arc::clone(&config), Arc::clone(&taken));
                // Who hangs up has heard enough.
                thread::spawn(move || drop(Caller { login, taken }.serve(stream, speaks, config)));
            }
        });
        here
    }

    /// The certificate of its authority.
    pub fn authority(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// A file of its own that holds a password.
    pub fn password(&self, password: &str) -> PathBuf {
        let path = self.dir.path().join("password");
        std::fs::write(&path, format!("{password}\n")).unwrap();
        path
    }

    /// What was taken, and whether over TLS: `tls` or `clear` before each.
    pub fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

/// A certificate of a new authority in PEM, and one of its leaves for [`NAME`] with its key.
fn certificates() -> (String, CertificateDer<'static>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![NAME.to_owned()]).unwrap().signed_by(&own, &issuer).unwrap();
    (authority, leaf.der().clone(), PrivatePkcs8KeyDer::from(own.serialize_der()).into())
}

struct Caller {
    login: bool,
    taken: Arc<Mutex<Vec<String>>>,
}

/// How a conversation goes on.
enum Then {
    Ends,
    SpeaksTls,
}

impl Caller {
    fn serve(&self, mut stream: TcpStream, speaks: Speaks, config: Arc<ServerConfig>) -> std::io::Result<()> {
        let upgraded = match speaks {
            Speaks::Tls => true,
            Speaks::StartTls | Speaks::Clear => {
                stream.write_all(b"220 test\r\n")?;
                let offers = speaks == Speaks::StartTls;
                matches!(self.converse(&mut stream, "clear", offers, false)?, Then::SpeaksTls)
            }
        };
        if upgraded {
            let tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
            let mut stream = StreamOwned::new(tls, stream);
            if speaks == Speaks::Tls {
                stream.write_all(b"220 test\r\n")?;
            }
            self.converse(&mut stream, "tls", false, self.login)?;
        }
        Ok(())
    }

    fn converse(
        &self,
        stream: &mut (impl Read + Write),
        how: &str,
        offers: bool,
        login: bool,
    ) -> std::io::Result<Then> {
        let mut known = !login;
        loop {
            let line = line(stream)?;
            let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let answer = match &verb[..] {
                "EHLO" if offers => "250-test\r\n250 STARTTLS\r\n",
                "EHLO" if login => "250-test\r\n250 AUTH PLAIN\r\n",
                "EHLO" => "250-test\r\n250 8BITMIME\r\n",
                "STARTTLS" if offers => {
                    stream.write_all(b"220 go on\r\n")?;
                    return Ok(Then::SpeaksTls);
                }
                "AUTH" if line.ends_with(&plain(USER)) => {
                    known = true;
                    "235 welcome\r\n"
                }
                "AUTH" => "535 5.7.8 authentication credentials invalid\r\n",
                "MAIL" | "RCPT" if !known => "530 5.7.0 authentication required\r\n",
                "MAIL" | "RCPT" | "RSET" => "250 ok\r\n",
                "DATA" => {
                    stream.write_all(b"354 go on\r\n")?;
                    let mut text = format!("{how}\n");
                    loop {
                        match self::line(stream)?.as_str() {
                            "." => break,
                            more => text.extend([more, "\n"]),
                        }
                    }
                    self.taken.lock().unwrap().push(text);
                    "250 taken\r\n"
                }
                "QUIT" => {
                    stream.write_all(b"221 bye\r\n")?;
                    return Ok(Then::Ends);
                }
                _ => "502 not here\r\n",
            };
            stream.write_all(answer.as_bytes())?;
        }
    }
}

/// One line, and not a byte more: what comes after STARTTLS is not read as text.
fn line(stream: &mut impl Read) -> std::io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(String::from_utf8_lossy(&line).trim_end().to_owned()),
            other => line.push(other),
        }
    }
}

/// What a client says to log in (RFC 4616), in base64.
fn plain((user, password): (&str, &str)) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let raw = format!("\0{user}\0{password}").into_bytes();
    let mut text = String::new();
    for three in raw.chunks(3) {
        let all = three.iter().chain(&[0, 0]).take(3).fold(0, |all, byte| all << 8 | usize::from(*byte));
        let digit = |i: usize| DIGITS[all >> (18 - 6 * i) & 63] as char;
        text.extend((0..4).map(|i| if i <= three.len() { digit(i) } else { '=' }));
    }
    text
}

/// A mail server that somebody else has written, on loopback: Exim, as Debian has it.
pub struct Exim {
    /// Where it speaks TLS when it is asked to, from the first byte, and never.
    pub ports: [u16; 3],
    /// The certificate that it shows; it is its own authority's.
    pub certificate: PathBuf,
    dir: TempDir,
    child: std::process::Child,
}

impl Exim {
    /// Starts one; nothing, said loudly, where there is none, or not the right to.
    pub fn start() -> Option<Self> {
        let there = Path::new("/usr/sbin/exim4").exists() && rustix::process::geteuid().is_root();
        if !there {
            let _ = writeln!(std::io::stderr(), "SKIPPED: mail to Exim needs root and exim4-daemon-light");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        // Bound for a moment: what `free_port` gives is held by its owner for good, and this wants TCP.
        let held = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = held.each_ref().map(|held| held.local_addr().unwrap().port());
        drop(held);
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
        std::fs::write(path("exim.conf"), config(dir.path(), ports)).unwrap();
        open_to_all(dir.path());
        let log = std::fs::File::create(path("out")).unwrap();
        let mut command = std::process::Command::new("/usr/sbin/exim4");
        command.arg("-bdf").arg("-C").arg(path("exim.conf")).stdout(log.try_clone().unwrap()).stderr(log);
        let here = Self { ports, certificate: path("cert.pem"), child: command.spawn().unwrap(), dir };
        crate::wait_until("Exim listens", || {
            ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok())
        });
        Some(here)
    }

    /// What its log says of the mails that it has taken: over which protocol, from whom.
    pub fn taken(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.dir.path().join("mainlog")).unwrap_or_default();
        log.lines().filter(|line| line.contains(" <= b@example.org ")).map(str::to_owned).collect()
    }
}

impl Drop for Exim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// It gives its rights up before it reads and writes.
fn open_to_all(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(dir.join("box")).unwrap();
    for path in [dir.to_path_buf(), dir.join("box")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
}

fn config(dir: &Path, [start, wrapped, clear]: [u16; 3]) -> String {
    let (user, password) = USER;
    let dir = dir.display();
    format!(
        "spool_directory = {dir}/spool\nlog_file_path = {dir}/%slog\npid_file_path =\nkeep_environment =\n\
         primary_hostname = mail.example.org\nlocal_interfaces = 127.0.0.1\n\
         daemon_smtp_ports = {start} : {wrapped} : {clear}\ntls_on_connect_ports = {wrapped}\n\
         tls_advertise_hosts = ${{if eq{{$received_port}}{{{clear}}}{{}}{{*}}}}\n\
         tls_certificate = {dir}/cert.pem\ntls_privatekey = {dir}/key.pem\n\
         auth_advertise_hosts = ${{if eq{{$tls_in_cipher}}{{}}{{}}{{*}}}}\n\
         acl_smtp_rcpt = accept\nacl_smtp_data = accept\n\
         begin routers\nall:\n  driver = accept\n  transport = box\n\
         begin transports\nbox:\n  driver = appendfile\n  directory = {dir}/box\n  maildir_format\n  user = nobody\n\
         begin authenticators\nplain:\n  driver = plaintext\n  public_name = PLAIN\n  server_prompts = :\n  \
         server_condition = ${{if and{{{{eq{{$auth2}}{{{user}}}}}{{eq{{$auth3}}{{{password}}}}}}}}}\n"
    )
}

//! A mail server and a web server on loopback that remember what they were sent.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A mail as it arrived.
#[derive(Debug, Clone)]
pub struct Mail {
    /// The envelope's recipient.
    pub to: String,
    /// Headers and body, as they were sent.
    pub text: String,
}

/// How a mail server treats its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    /// It takes every mail.
    Kind,
    /// It tells so many callers to come back later.
    Refuses(usize),
    /// It answers nothing at all.
    Silent,
}

/// A mail server: EHLO, MAIL, RCPT, DATA, QUIT.
pub struct MailServer {
    /// Its TCP port.
    pub port: u16,
    mails: Arc<Mutex<Vec<Mail>>>,
    calls: Arc<Mutex<usize>>,
}

impl MailServer {
    /// Starts one.
    pub fn start(manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, mails: Arc::default(), calls: Arc::default() };
        let (mails, calls) = (Arc::clone(&server.mails), Arc::clone(&server.calls));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let call = {
                    let mut calls = calls.lock().unwrap();
                    *calls += 1;
                    *calls
                };
                let mails = Arc::clone(&mails);
                thread::spawn(move || match manners {
                    Manners::Silent => thread::sleep(crate::PATIENCE),
                    Manners::Refuses(n) if call <= n => drop(converse(stream, None)),
                    Manners::Kind | Manners::Refuses(_) => drop(converse(stream, Some(&mails))),
                });
            }
        });
        server
    }

    /// What has arrived.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails.lock().unwrap().clone()
    }

    /// How often somebody called.
    pub fn calls(&self) -> usize {
        *self.calls.lock().unwrap()
    }
}

/// One caller; without a box, every recipient is refused for now.
fn converse(stream: TcpStream, mails: Option<&Mutex<Vec<Mail>>>) -> std::io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut lines = BufReader::new(stream).lines();
    let mut to = String::new();
    out.write_all(b"220 test\r\n")?;
    while let Some(line) = lines.next().transpose()? {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" | "HELO" => "250-test\r\n250 8BITMIME\r\n",
            "MAIL" | "RSET" => "250 ok\r\n",
            "RCPT" if mails.is_none() => "451 try again later\r\n",
            "RCPT" => {
                to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
                "250 ok\r\n"
            }
            "DATA" => {
                out.write_all(b"354 go on\r\n")?;
                let text: Vec<String> =
                    lines.by_ref().map_while(Result::ok).take_while(|line| line != ".").collect();
                if let Some(mails) = mails {
                    mails.lock().unwrap().push(Mail { to: to.clone(), text: text.join("\n") });
                }
                "250 taken\r\n"
            }
            "QUIT" => {
                out.write_all(b"221 bye\r\n")?;
                return Ok(());
            }
            _ => "502 not here\r\n",
        };
        out.write_all(answer.as_bytes())?;
    }
    Ok(())
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// The request line and the headers, in lower case.
    pub head: String,
    /// The body.
    pub body: String,
}

/// A web server with one answer for everything.
pub struct WebServer {
    /// Its TCP port.
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl WebServer {
    /// Starts one that answers with a status line such as `200 OK`.
    pub fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, requests: Arc::default() };
        let requests = Arc::clone(&server.requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if let Ok(request) = answer(stream, status) {
                    requests.lock().unwrap().push(request);
                }
            }
        });
        server
    }

    /// What has arrived.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, status: &str) -> std::io::Result<Request> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    let (mut head, mut line) = (String::new(), String::new());
    while input.read_line(&mut line)? > 2 {
        head.push_str(&line.to_lowercase());
        line.clear();
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap_or(0))];
    input.read_exact(&mut body)?;
    write!(out, "HTTP/1.1 {status}\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")?;
    Ok(Request { head, body: String::from_utf8_lossy(&body).into_owned() })
}

//! The task that delivers: from the database to the channels, with patience.
//!
//! It has a connection to the database of its own, and waits for SQLite on threads where waiting is allowed: a mail
//! server that hangs holds up nothing else. A delivery is noted as sent only after the channel has taken it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinHandle, JoinSet};

use super::post::{Post, SendError, Stamp};
use super::{message, retry};
use crate::clock;
use crate::error::ServerError;
use crate::fleet::{AlertRow, Delivery, Fleet};
use crate::home::ServerHome;

/// Deliveries at once.
const AT_ONCE: usize = 4;
/// The database is looked at so often even if nobody rings: what another process raised is found within this.
const LOOK: Duration = Duration::from_secs(60);

/// By which it is delivered: those of the newest config.
type Channels = Arc<Mutex<Arc<Post>>>;

/// The running task. Dropped, it ends; what was under way is delivered again by the next.
pub struct Courier {
    bell: Arc<Notify>,
    post: Channels,
    task: JoinHandle<()>,
}

impl Courier {
    /// Starts to deliver, by the channels of the home's config.
    ///
    /// # Errors
    /// No server here, or its config or database cannot be used.
    pub fn start(home: &ServerHome) -> Result<Self, ServerError> {
        Ok(Self::with(home.fleet()?, post_of(home)?))
    }

    /// From now on delivers by the channels of the home's config as it is now.
    ///
    /// # Errors
    /// It cannot be read: all stays as it was.
    pub fn reload(&self, home: &ServerHome) -> Result<(), ServerError> {
        let post = post_of(home)?;
        *self.post.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(post);
        self.wake();
        Ok(())
    }

    /// Starts to deliver from a database by given channels.
    pub fn with(fleet: Fleet, post: Post) -> Self {
        let (bell, post) = (Arc::new(Notify::new()), Arc::new(Mutex::new(Arc::new(post))));
        let mut rounds = Rounds {
            books: Arc::new(Mutex::new(fleet)),
            post: Arc::clone(&post),
            under_way: JoinSet::new(),
            taken: HashMap::new(),
        };
        let rung = Arc::clone(&bell);
        let task = tokio::spawn(async move { rounds.run(&rung).await });
        Self { bell, post, task }
    }

    /// There is something new to deliver.
    pub fn wake(&self) {
        self.bell.notify_one();
    }

    /// What wakes it, for those who raise alerts elsewhere.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.bell)
    }

    /// Ends it.
    pub async fn stop(mut self) {
        self.task.abort();
        // It was told to end, and has no result.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Rounds {
    books: Arc<Mutex<Fleet>>,
    post: Channels,
    under_way: JoinSet<Result<String, SendError>>,
    /// Deliveries that are under way.
    taken: HashMap<Id, Delivery>,
}

impl Rounds {
    async fn run(&mut self, bell: &Notify) {
        loop {
            let pause = match self.dispatch().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!("alerts cannot be delivered: {error}");
                    LOOK
                }
            };
            tokio::select! {
                Some(tried) = self.under_way.join_next_with_id() => match tried {
                    Ok((task, result)) => self.settle(task, result).await,
                    Err(error) => self.settle(error.id(), Err(SendError::Broken(error.to_string()))).await,
                },
                () = bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts what is due and has a place; returns how long nothing more will be due.
    async fn dispatch(&mut self) -> Result<Duration, ServerError> {
        let now = clock::now();
        let post = Arc::clone(&*self.post.lock().unwrap_or_else(PoisonError::into_inner));
        let (by, looked_at) = (Arc::clone(&post), AT_ONCE + self.taken.len());
        let pending = self.books(move |fleet| collect(fleet, &by, now, looked_at)).await?;
        for (delivery, row) in pending {
            // Two messages about one alert to one recipient go one after the other: the newer must not arrive first.
            let same = |taken: &Delivery| taken.alert == delivery.alert && taken.route == delivery.route;
            if self.taken.values().any(same) {
                continue;
            }
            if delivery.next_try_at > now {
                return Ok(Duration::from_secs(delivery.next_try_at - now).min(LOOK));
            }
            if self.taken.len() >= AT_ONCE {
                break;
            }
            let (post, sent) = (Arc::clone(&post), delivery.clone());
            let task = self.under_way.spawn(async move { attempt(&post, &sent, &row, now).await });
            self.taken.insert(task.id(), delivery);
        }
        Ok(LOOK)
    }

    /// Notes how a try ended.
    async fn settle(&mut self, task: Id, result: Result<String, SendError>) {
        let Some(delivery) = self.taken.get(&task) else { return };
        let (id, now) = (delivery.id, clock::now());
        let (channel, to) = (delivery.route.channel.as_str(), delivery.route.recipient.clone());
        let noted = match result {
            Ok(answer) => {
                tracing::info!(alert = delivery.alert, channel, to, "told: {answer}");
                self.books(move |fleet| fleet.delivered(id)).await
            }
            Err(error) => {
                let next = match error {
                    SendError::NotConfigured => None,
                    _ => retry::after(delivery.tries + 1, delivery.created_at, now),
                };
                let then = if next.is_some() { "will be tried again" } else { "given up" };
                tracing::warn!(alert = delivery.alert, channel, to, "not told, {then}: {error}");
                let why = error.to_string();
                self.books(move |fleet| fleet.not_delivered(id, &why, next)).await
            }
        };
        match noted {
            Ok(()) => drop(self.taken.remove(&task)),
            // Still taken, it is not sent over and over while the database cannot be written; the next start of the
            // server sends it again.
            Err(error) => tracing::error!("what was delivered cannot be noted: {error}"),
        }
    }

    /// Works on the database where that may take its time.
    async fn books<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Fleet) -> Result<T, ServerError> + Send + 'static,
    ) -> Result<T, ServerError> {
        let books = Arc::clone(&self.books);
        let done = tokio::task::spawn_blocking(move || {
            work(&mut books.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await.map_err(|error| ServerError::Broken(error.to_string()))?
    }
}

fn post_of(home: &ServerHome) -> Result<Post, ServerError> {
    let config = home.config()?;
    let server = config.names.first().cloned().unwrap_or_else(|| "backhaul".to_owned());
    Ok(Post::new(config.alerts, server))
}

/// Hands out what is to be told, and looks up what is pending.
fn collect(
    fleet: &mut Fleet,
    post: &Post,
    now: u64,
    limit: usize,
) -> Result<Vec<(Delivery, AlertRow)>, ServerError> {
    for row in fleet.unrouted()? {
        let Some(what) = row.announce else { continue };
        let routes = post.routes(&row);
        let (kind, text) = (row.alert.kind.as_str(), &row.alert.text);
        tracing::warn!(alert = row.id, kind, what = what.as_str(), recipients = routes.len(), "{text}");
        fleet.route(row.id, what, &routes, now)?;
    }
    let mut found = Vec::new();
    for delivery in fleet.pending(now, limit)? {
        if let Some(row) = fleet.alert(delivery.alert)? {
            found.push((delivery, row));
        }
    }
    Ok(found)
}

async fn attempt(post: &Post, delivery: &Delivery, row: &AlertRow, now: u64) -> Result<String, SendError> {
    let audience = delivery.route.channel.audience();
    let message = message::compose(post.server(), row, delivery.what, audience, now);
    let stamp = Stamp {
        thread: format!("{}.{}", row.raised_at, row.id),
        serial: format!("{}.{}", delivery.what.as_str(), delivery.id),
        now,
    };
    post.send(&delivery.route, &message, &stamp).await
}

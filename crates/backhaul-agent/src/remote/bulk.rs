//! The tasks of a session that move objects: out as fast as the policy allows, in as they were asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::Duration;

use backhaul_net::NetError;
use backhaul_net::link::{Arrived, ObjectReader, ObjectWriter, Streams};
use backhaul_net::throttle::{self, Bucket};
use backhaul_object::source::TransferError;
use backhaul_object::{Compressed, FormatError, Reference};
use backhaul_proto::end;
use tokio::sync::{mpsc, oneshot};

use super::driver::heard;
use super::{Bounds, Shared, lost};
use crate::clock;
use crate::ways::Leaving;

/// A read that was asked for: its replies come in this order.
pub(super) struct PendingRead {
    pub wanted: Vec<Reference>,
    pub reply: Sender<Result<Vec<Compressed>, TransferError>>,
}

/// Sends what is put, until there is no more or it is not wanted any more.
pub(super) async fn send_objects(
    streams: Arc<Streams>,
    mut objects: mpsc::Receiver<Compressed>,
    shared: Arc<Shared>,
    (abandoned, mut leaving): (oneshot::Receiver<()>, Option<Leaving>),
) {
    let Some(first) = objects.recv().await else { return };
    let mut writer = match streams.open().await {
        Ok(writer) => writer,
        Err(error) => return shared.fail(end::PROTOCOL, lost(&error)),
    };
    let whole = tokio::select! {
        whole = pour(&mut writer, first, &mut objects, &shared) => whole,
        Ok(()) = abandoned => false,
        // What is under way would be before the goodbye, and may keep it from leaving at all.
        _ = heard(&mut leaving) => false,
    };
    if !whole {
        writer.abandon();
    }
}

/// Sends objects until there are no more; false when they are not to arrive.
async fn pour(
    writer: &mut ObjectWriter,
    first: Compressed,
    objects: &mut mpsc::Receiver<Compressed>,
    shared: &Shared,
) -> bool {
    let Bounds { per_s, cap } = shared.bounds.get().copied().unwrap_or_default();
    let (mut bucket, mut sent, mut next) = (per_s.map(Bucket::new), 0u64, Some(first));
    while let Some(object) = next {
        let bytes = object.body.len() as u64;
        sent += bytes;
        if cap.is_some_and(|cap| sent > cap) {
            let why = "this connection costs by the byte, and one run's bytes are used up".to_owned();
            shared.fail(end::AGENT, TransferError::Refused(why));
            return false;
        }
        if let Some(bucket) = &mut bucket {
            let wait = bucket.take(clock::clocks().mono_ms * 1_000_000, bytes);
            throttle::pause(Duration::from_nanos(wait)).await;
        }
        // The control stream knows the better reason, if the server gave one.
        if writer.send(&object).await.is_err() {
            return false;
        }
        shared.left.fetch_add(1, Ordering::SeqCst);
        next = objects.recv().await;
    }
    true
}

/// Answers reads in the order in which they were asked for.
pub(super) async fn receive_objects(
    streams: Arc<Streams>,
    mut pending: mpsc::UnboundedReceiver<PendingRead>,
    shared: Arc<Shared>,
) {
    let mut reader: Option<ObjectReader> = None;
    while let Some(PendingRead { wanted, reply }) = pending.recv().await {
        if reader.is_none() {
            reader = streams.accept().await.ok();
        }
        let Some(stream) = &mut reader else { return };
        match receive(stream, &wanted).await {
            Ok(outcome) => drop(reply.send(outcome)),
            Err(error) => {
                shared.fail(end::PROTOCOL, lost(&error));
                return;
            }
        }
    }
}

/// Takes all replies to one read, so that the next begins at the right place even after a failure.
async fn receive(
    stream: &mut ObjectReader,
    wanted: &[Reference],
) -> Result<Result<Vec<Compressed>, TransferError>, NetError> {
    let (mut objects, mut failure) = (Vec::with_capacity(wanted.len()), None);
    for Reference { id, .. } in wanted {
        match stream.next().await? {
            Some(Arrived::Object(object)) => objects.push(object),
            Some(Arrived::Absent(_)) => drop(failure.get_or_insert(TransferError::NotFound(*id))),
            Some(Arrived::Damaged(_)) => {
                let why = FormatError::Mismatch("what the server has stored");
                failure.get_or_insert(TransferError::Damaged { id: *id, why });
            }
            None => return Err(NetError::Lost("the server ended the reply stream".to_owned())),
        }
    }
    Ok(failure.map_or(Ok(objects), Err))
}

//! Frames as a log shows them.

use backhaul_proto::wire;

pub(super) fn traced(frame: wire::Frame) -> wire::Frame {
    tracing::trace!("frame < {}", describe(&frame));
    frame
}

/// A frame's name and, where it says something that does not change from run to run, its size.
pub(super) fn describe(frame: &wire::Frame) -> String {
    use wire::frame::Body;
    match &frame.body {
        None => "nothing".to_owned(),
        Some(Body::Hello(hello)) => format!("Hello {:?}", hello.intent()),
        Some(Body::Welcome(_)) => "Welcome".to_owned(),
        Some(Body::Ask(ask)) => format!("Ask {} of {}", ask.batch, ask.prefixes.len() / 8),
        Some(Body::Answers(answers)) => format!("Answers {} of {}", answers.batch, answers.codes.len()),
        Some(Body::Prove(prove)) => format!("Prove {} of {}", prove.batch, prove.proofs.len() / 48),
        Some(Body::Sign(sign)) => format!("Sign {} of {}", sign.batch, sign.ids.len()),
        Some(Body::Signatures(signed)) => format!("Signatures {} of {}", signed.batch, signed.signed.len()),
        Some(Body::Arrange(arrange)) => format!("Arrange {}", arrange.ids.len() / 32),
        Some(Body::Arranged(arranged)) => format!("Arranged {}", arranged.order.len()),
        Some(Body::Durable(durable)) => format!("Durable {}", durable.objects),
        Some(Body::Commit(commit)) => format!("Commit {}", commit.objects),
        Some(Body::Committed(_)) => "Committed".to_owned(),
        Some(Body::List(_)) => "List".to_owned(),
        Some(Body::Snapshots(rows)) => format!("Snapshots {}", rows.rows.len()),
        Some(Body::Read(read)) => format!("Read {}", read.ids.len()),
        Some(Body::End(end)) => format!("End {}", end.code),
        Some(Body::Stats(_)) => "Stats".to_owned(),
        Some(Body::VaultStats(_)) => "VaultStats".to_owned(),
        Some(Body::Queued(queued)) => format!("Queued {}", queued.position),
        Some(Body::Verdict(_)) => "Verdict".to_owned(),
        Some(Body::Nudge(_)) => "Nudge".to_owned(),
        Some(Body::NudgeReply(_)) => "NudgeReply".to_owned(),
        Some(Body::Report(_)) => "Report".to_owned(),
        Some(Body::NotNow(_)) => "NotNow".to_owned(),
        Some(Body::Terms(_)) => "Terms".to_owned(),
        Some(Body::Applied(_)) => "Applied".to_owned(),
        Some(Body::RestoreOrder(_)) => "RestoreOrder".to_owned(),
        Some(Body::RestoreAnswer(_)) => "RestoreAnswer".to_owned(),
        Some(Body::RestoreProgress(_)) => "RestoreProgress".to_owned(),
        Some(Body::RestoreResult(_)) => "RestoreResult".to_owned(),
    }
}

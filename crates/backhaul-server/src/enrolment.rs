//! Answers join requests.

use std::sync::{Mutex, PoisonError};

use backhaul_net::authority::Authority;
use backhaul_net::enrol::{Application, Refusal};
use backhaul_net::{PeerIdentity, Role};

use crate::alerts::AlertKind;
use crate::clock;
use crate::error::ServerError;
use crate::fleet::{ClientState, Fleet};

/// Name, agent certificate, listener certificate.
type Certificates = (String, Vec<u8>, Vec<u8>);

/// Decides about an application and uses its invitation up.
///
/// # Errors
/// The fleet or the CA failed; refusals are not errors.
pub fn decide(
    application: &Application,
    fleet: &Mutex<Fleet>,
    authority: &Authority,
) -> Result<Result<Certificates, Refusal>, ServerError> {
    let now = clock::now();
    let mut fleet = fleet.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((invitation, client)) = fleet.invitation(application.invitation())? else {
        return Ok(Err(Refusal::Unknown));
    };
    if !application.proves(&invitation.proof_key) {
        return Ok(Err(Refusal::BadProof));
    }
    if invitation.used {
        return Ok(Err(Refusal::Spent));
    }
    if now > invitation.expires_at {
        return Ok(Err(Refusal::Expired));
    }
    if client.state == ClientState::Revoked {
        return Ok(Err(Refusal::Unknown));
    }
    let (agent, listener) = application.requests();
    let issue = |request: &[u8], role| authority.issue(request, role, &client.name, now);
    let (Ok(agent), Ok(listener)) = (issue(agent, Role::Agent), issue(listener, Role::AgentListener)) else {
        return Ok(Err(Refusal::BadRequest));
    };
    let key =
        |der: &[u8]| PeerIdentity::from_certificate(&der.to_vec().into()).map(|peer| peer.fingerprint());
    let keys = [key(&agent)?, key(&listener)?];
    fleet.forget_instances(client.id)?;
    fleet.clear(AlertKind::Clone, Some(client.id), None, now)?;
    match fleet.enrol(application.invitation(), client.id, keys, now)? {
        true => Ok(Ok((client.name, agent, listener))),
        false => Ok(Err(Refusal::Spent)),
    }
}

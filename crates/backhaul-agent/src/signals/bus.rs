//! The system's D-Bus, as far as there is one. Nothing depends on it.

use std::time::Duration;

use serde::Serialize;
use zbus::{Connection, Message};

/// Who does not answer by then is not there.
const PATIENCE: Duration = Duration::from_secs(2);

/// A method of an object on the bus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Method {
    pub service: &'static str,
    pub path: &'static str,
    pub interface: &'static str,
    pub name: &'static str,
}

/// A connection that is made when it is needed, to `DBUS_SYSTEM_BUS_ADDRESS` or the usual place.
#[derive(Debug, Default)]
pub(crate) struct Bus(Option<Connection>);

impl Bus {
    /// Calls a method; none when anything on the way fails.
    pub async fn call<B>(&mut self, method: Method, body: &B) -> Option<Message>
    where
        B: Serialize + zbus::zvariant::DynamicType + Sync,
    {
        let asked = async {
            let bus = match self.0.take().filter(|bus| !bus.is_closed()) {
                Some(bus) => bus,
                None => Connection::system().await?,
            };
            let Method { service, path, interface, name } = method;
            let answer = bus.call_method(Some(service), path, Some(interface), name, body).await;
            self.0 = Some(bus);
            answer
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!("{} on the system bus: {error}", method.service);
                None
            }
            Err(_) => {
                tracing::debug!("{} on the system bus does not answer", method.service);
                None
            }
        }
    }
}

//! Whether the connection costs by the byte: NetworkManager knows, or the kind of interface tells.

use zbus::OwnedVariant;

use crate::signals::bus::{Bus, Method};
use crate::signals::network::InterfaceKind;

/// Whether bytes cost money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Metered {
    /// Not as far as is known.
    #[default]
    No,
    /// Said, or guessed by who knows more.
    Yes,
}

const GET: Method = Method {
    service: "org.freedesktop.NetworkManager",
    path: "/org/freedesktop/NetworkManager",
    interface: "org.freedesktop.DBus.Properties",
    name: "Get",
};

/// Asks NetworkManager, and goes by the interface where that is absent or does not know.
pub(crate) async fn ask(bus: &mut Bus, kind: Option<InterfaceKind>) -> Metered {
    let answer = bus.call(GET, &("org.freedesktop.NetworkManager", "Metered")).await;
    let value = answer.and_then(|answer| answer.body().deserialize::<OwnedVariant>().ok());
    value.and_then(|value| u32::try_from(value).ok()).and_then(said).unwrap_or_else(|| by_kind(kind))
}

/// `NMMetered` of libnm: unknown, yes, no, yes by guess, no by guess.
fn said(number: u32) -> Option<Metered> {
    match number {
        1 | 3 => Some(Metered::Yes),
        2 | 4 => Some(Metered::No),
        _ => None,
    }
}

pub(crate) fn by_kind(kind: Option<InterfaceKind>) -> Metered {
    match kind {
        Some(InterfaceKind::Wwan | InterfaceKind::UsbTether) => Metered::Yes,
        _ => Metered::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_count_and_ignorance_does_not() {
        let known =
            [None, Some(Metered::Yes), Some(Metered::No), Some(Metered::Yes), Some(Metered::No), None];
        assert_eq!(known, [0, 1, 2, 3, 4, 5].map(said));
        assert_eq!(by_kind(Some(InterfaceKind::UsbTether)), Metered::Yes);
        assert_eq!(by_kind(Some(InterfaceKind::Wifi)), Metered::No);
        assert_eq!(by_kind(None), Metered::No);
    }
}

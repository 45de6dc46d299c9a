//! Pipes, sockets and devices.

use crate::codec::{FormatError, Reader, Write};

/// What has no content and is no way to any file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A socket: only that there was one.
    Socket,
    /// A character device.
    Character(Device),
    /// A block device.
    Block(Device),
}

/// The numbers of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

pub(super) fn encode(out: &mut Vec<u8>, special: Special) {
    let (kind, device) = match special {
        Special::Fifo => (0, None),
        Special::Socket => (1, None),
        Special::Character(device) => (2, Some(device)),
        Special::Block(device) => (3, Some(device)),
    };
    out.push(kind);
    if let Some(Device { major, minor }) = device {
        out.put_varint(u64::from(major));
        out.put_varint(u64::from(minor));
    }
}

pub(super) fn decode(r: &mut Reader<'_>) -> Result<Special, FormatError> {
    let kind = r.u8("kind of special file")?;
    let mut device = || {
        let mut number = |what| r.count(what, u32::MAX as usize).map(|number| number as u32);
        Ok::<_, FormatError>(Device { major: number("major number")?, minor: number("minor number")? })
    };
    Ok(match kind {
        0 => Special::Fifo,
        1 => Special::Socket,
        2 => Special::Character(device()?),
        3 => Special::Block(device()?),
        other => return Err(FormatError::Unknown { what: "kind of special file", value: u64::from(other) }),
    })
}

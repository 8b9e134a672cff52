//! `devices`: whose certificates the server has issued, one object of JSON that `cygnet user` writes.

use serde::Deserialize;

/// The one version of the file there is.
const VERSION: u64 = 1;

/// A certificate that is valid and not revoked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Whose.
    pub user: String,
    /// Which of the user's.
    pub device: String,
    /// Serial number of the certificate, hexadecimal.
    pub serial: String,
    /// The identity in it by which the device proves itself.
    pub identity: String,
    /// When it expires, in seconds since 1970.
    pub not_after: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "version")]
    _version: u64,
    devices: Vec<Device>,
}

/// Which version a file is, whatever else it holds.
#[derive(Deserialize)]
struct Version {
    version: u64,
}

/// Reads the file `name`.
pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Vec<Device>, String> {
    let wrong = |e: serde_json::Error| {
        format!(
            "{name}: {e}; expected {{\"version\": {VERSION}, \"devices\": [{{\"user\", \"device\", \
             \"serial\", \"identity\", \"not_after\"}}, …]}} as `cygnet user` writes it"
        )
    };
    let Version { version } = serde_json::from_slice(bytes).map_err(wrong)?;
    if version != VERSION {
        return Err(format!(
            "{name}: version {version} of the list of devices; expected {VERSION}: it was written by \
             another version of cygnet, whose `cygnet server show` writes it again"
        ));
    }
    let File { devices, .. } = serde_json::from_slice(bytes).map_err(wrong)?;
    for device in &devices {
        let hexadecimal = |b: u8| b.is_ascii_hexdigit();
        if device.serial.is_empty() || !device.serial.bytes().all(hexadecimal) {
            return Err(format!(
                "{name}: serial `{}` of {}.{}: expected hexadecimal digits",
                device.serial, device.user, device.device
            ));
        }
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = r#"{"user":"alice","device":"iphone","serial":"0a1b","identity":"alice.iphone@1a2b3c4d.cygnet.internal","not_after":1800000000}"#;

    #[test]
    fn what_is_written_is_read() {
        let text = format!(r#"{{"version":1,"devices":[{ALICE}]}}"#);
        let devices = parse("devices.json", text.as_bytes()).unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].user, "alice");
        assert_eq!(devices[0].not_after, 1_800_000_000);
        let none = parse("devices.json", br#"{"version":1,"devices":[]}"#);
        assert_eq!(none, Ok(Vec::new()));
    }

    #[test]
    fn what_is_not_understood_is_named_with_the_file() {
        let more = ALICE.replace("\"user\"", "\"phone\":\"1\",\"user\"");
        let serial = ALICE.replace("0a1b", "0x1");
        for (text, told) in [
            ("{}".to_owned(), "version"),
            ("[]".to_owned(), "expected {\"version\": 1"),
            (r#"{"version":2,"people":[]}"#.to_owned(), "version 2"),
            (r#"{"version":1}"#.to_owned(), "devices"),
            (format!(r#"{{"version":1,"devices":[{more}]}}"#), "phone"),
            (
                format!(r#"{{"version":1,"devices":[{serial}]}}"#),
                "hexadecimal",
            ),
        ] {
            let error = parse("server/devices.json", text.as_bytes()).unwrap_err();
            assert!(error.starts_with("server/devices.json: "), "{error}");
            assert!(error.contains(told), "{error}");
        }
    }
}

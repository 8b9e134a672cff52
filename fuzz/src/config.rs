//! A configuration as somebody may write it.

use cygnet_config::Config;

/// Any text: it is a configuration, or a list of mistakes that lie within it.
pub fn config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let outcome = Config::parse("cygnet.toml", &text, &mut |path| {
        Err(format!("cannot read {path}: there are no files here"))
    });
    match outcome {
        Ok(config) => {
            for connection in &config.policy.connections {
                assert!(
                    !connection.children.is_empty(),
                    "{} has no child",
                    connection.name
                );
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

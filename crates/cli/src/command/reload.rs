//! `cygnet reload`

use std::path::Path;
use std::process::ExitCode;

use hyper::Method;

use crate::client;

pub(super) fn reload(socket: &Path) -> ExitCode {
    match client::call(socket, Method::POST, "/v1/reload", None) {
        Ok(_) => {
            println!("The configuration is applied.");
            ExitCode::SUCCESS
        }
        Err(message) => super::refuse(&message),
    }
}

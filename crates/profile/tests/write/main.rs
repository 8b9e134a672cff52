//! What is written, read by software no one here wrote.

#![allow(clippy::print_stderr, reason = "tests say what they cannot check here")]

mod android;
mod apple;
mod bundle;
mod hostile;
mod linux;
mod page;
mod pkcs12;
mod powershell;
mod sample;
mod site;
mod tools;

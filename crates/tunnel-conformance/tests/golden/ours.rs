//! The frames that this library sends.

use std::time::Duration;

use tunnel_core::{Code, Config, Offer, Revisions, Side, Status, StatusDetail};

use crate::wire::{Wire, folder};

#[test]
fn a_unary_call() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[("key", "value"), ("bytes-bin", "\u{0}\u{7f}\u{ff}")]);
    wire.request(id, &[b"request"]);
    wire.answer(id, &[b"response"], Status::OK);
    wire.matches(
        "unary",
        "A unary call of revision one, from the settings on.",
    );
}

#[test]
fn a_unary_call_of_revision_zero() {
    let zero = Config::builder().revisions(Revisions::OnlyZero).build();
    let mut wire = Wire::with_offer(&zero.expect("valid"), Offer::none());
    let id = wire.open(&[]);
    wire.request(id, &[b"request"]);
    wire.answer(id, &[b"response"], Status::OK);
    wire.matches(
        "unary-revision-zero",
        "A unary call of revision zero: no settings, no windows.",
    );
}

#[test]
fn empty_messages() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[]);
    wire.request(id, &[b"", b""]);
    wire.answer(id, &[b"", b""], Status::OK);
    wire.matches("empty-messages", "Messages without a byte, two each way.");
}

#[test]
fn streams_of_messages() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[]);
    wire.request(id, &[b"one", b"two", b"three"]);
    wire.answer(id, &[b"four", b"five", b"six"], Status::OK);
    wire.matches("streams", "Several messages each way.");
}

#[test]
fn a_message_in_chunks_with_window_updates() {
    static LARGE: [u8; 100_000] = [b'a'; 100_000];
    // The window is much smaller than the message, so credit returns in its middle.
    let config = Config::builder().initial_window(65_536).build();
    let mut wire = Wire::new(&config.expect("valid"));
    let id = wire.open(&[]);
    wire.request(id, &[&LARGE]);
    for _ in 0..4 {
        wire.read(Side::Handler, id);
    }
    wire.answer(id, &[&LARGE], Status::OK);
    for _ in 0..4 {
        wire.read(Side::Caller, id);
    }
    wire.matches(
        "chunks",
        "A message of 100,000 bytes each way: chunks of 16,384 bytes, and credit as they are read.",
    );
}

#[test]
fn a_failure_with_details() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[]);
    wire.request(id, &[b"request"]);
    let mut status = Status::new(Code::NotFound, "nicht da: \u{fc}");
    status.details.push(StatusDetail {
        type_url: "type.googleapis.com/golden.Detail".into(),
        value: b"\x00\xff".as_slice().into(),
    });
    wire.answer(id, &[], status);
    wire.matches(
        "failure",
        "A call that fails with a status, details and trailers.",
    );
}

#[test]
fn a_call_that_is_refused_at_once() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[]);
    wire.request(id, &[b"request"]);
    let status = Status::new(Code::Unimplemented, "no such method");
    wire.handler.reset(id, status);
    wire.carry();
    wire.matches("refused", "A call that is closed without headers.");
}

#[test]
fn a_call_that_is_cancelled() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[]);
    wire.carry();
    wire.caller.cancel(id);
    wire.carry();
    wire.matches("cancelled", "A call that its caller gives up.");
}

#[test]
fn a_call_whose_deadline_passes() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[("grpc-timeout", "1S")]);
    wire.request(id, &[b"request"]);
    wire.pass(Duration::from_secs(1));
    wire.carry();
    wire.matches("deadline", "A call whose deadline passes at both ends.");
}

#[test]
fn a_handler_that_drains() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[]);
    wire.carry();
    let late = wire.open(&[]);
    wire.handler.drain(wire.now, None);
    wire.carry();
    wire.answer(id, &[b"response"], Status::OK);
    wire.read(Side::Caller, late);
    wire.matches(
        "drain-handler",
        "A handler says that it drains; what it had not seen by then is refused as not processed.",
    );
}

#[test]
fn a_caller_that_drains() {
    let mut wire = Wire::new(&Config::default());
    let id = wire.open(&[]);
    wire.carry();
    wire.caller.drain(wire.now, None);
    wire.carry();
    wire.answer(id, &[b"response"], Status::OK);
    wire.matches("drain-caller", "A caller says that it drains.");
}

#[test]
fn a_drain_sends_no_notice_to_a_peer_without_drain_notices() {
    let mut others = Offer::none();
    others.negotiate = true;
    let mut wire = Wire::with_offer(&Config::default(), others);
    let id = wire.open(&[]);
    wire.carry();
    wire.handler.drain(wire.now, None);
    wire.caller.drain(wire.now, None);
    wire.carry();
    wire.answer(id, &[b"response"], Status::OK);
    wire.matches(
        "drain-unspoken",
        "Both ends drain towards a peer that knows no word for it.",
    );
}

/// Each recording has a test that makes it.
#[test]
fn every_recording_is_compared() {
    let tests = include_str!("ours.rs");
    for entry in std::fs::read_dir(folder("ours")).expect("there are recordings") {
        let name = entry.expect("readable").file_name();
        let name = name.to_string_lossy().replace(".frames", "");
        assert!(tests.contains(&format!("\"{name}\"")), "{name}");
    }
}

//! Settings: the defaults agree with each other, and contradictions are refused.

use std::time::Duration;

use tunnel_core::{Config, config::ConfigBuilder};

#[track_caller]
fn refused(builder: ConfigBuilder, word: &str) {
    let error = builder.build().expect_err("must be refused").to_string();
    assert!(error.contains(word), "{error}");
}

#[test]
fn the_defaults_pass_their_own_checks() {
    Config::default()
        .to_builder()
        .build()
        .expect("defaults agree");
}

#[test]
fn a_message_of_64_kib_and_its_envelope_fit_the_first_window() {
    let window = Config::default().initial_window() as usize;
    assert!(window > (64 << 10) + 1024, "{window}");
}

#[test]
fn the_default_memory_is_what_all_streams_are_promised_and_56_mib() {
    let config = Config::default();
    let windows = config.max_concurrent_streams() * config.initial_window() as usize;
    let unwindowed = 8 << 20;
    let spare = 56 << 20;
    // The promise may grow by exactly the spare memory.
    let promised = |mark| config.to_builder().unread_high_mark(mark).build();
    promised(unwindowed + spare).expect("it fits");
    promised(unwindowed + spare + 1).expect_err("one byte too much");
    assert_eq!(windows + unwindowed + spare, 160 << 20);
}

#[test]
fn another_1024_streams_need_96_mib_more() {
    let more = |mib: usize| {
        let builder = Config::builder().max_concurrent_streams(2048);
        builder.max_buffered_bytes((160 + mib) << 20)
    };
    // With the default spare memory.
    let spare = (8 + 56) << 20;
    more(96).unread_high_mark(spare).build().expect("it fits");
    refused(more(95).unread_high_mark(spare), "max_buffered_bytes");
}

#[test]
fn contradictions_are_refused_with_a_sentence_that_names_them() {
    let b = Config::builder;
    refused(b().chunk_size(16_385), "chunk_size");
    refused(b().chunk_size(0), "chunk_size");
    refused(b().initial_window(0), "initial_window");
    let window = b().max_window(1 << 20).initial_window((1 << 20) + 1);
    refused(window, "larger than max_window");
    refused(b().max_window(u32::MAX), "max_window");
    refused(b().max_concurrent_streams(0), "max_concurrent_streams");
    refused(b().max_metadata_size(1 << 20), "max_frame_size");
    refused(b().unread_low_mark(8 << 20), "unread_low_mark");
    refused(b().settings_timeout(Duration::ZERO), "settings_timeout");
    refused(
        b().unread_stall_timeout(Duration::ZERO),
        "unread_stall_timeout",
    );
    refused(b().send_buffer(0), "send_buffer");
    if usize::BITS > 32 {
        refused(b().max_message_size(usize::MAX), "max_message_size");
    }
}

#[test]
fn windows_over_the_cap_are_refused_unless_overcommit_is_chosen_by_name() {
    let over = Config::builder().max_concurrent_streams(100_000);
    refused(over.clone(), "overcommit");
    over.overcommit(true).build().expect("chosen by name");
}

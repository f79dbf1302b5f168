//! Notices about tunnels to come.

use std::time::Duration;

use tunnel_core::{Config, Event, FrameKind, Metadata, Notice, Offer, Side, StreamId};

use crate::support::offer;
use crate::support::pair::Pair;

fn notice() -> Notice {
    let mut notice = Notice::new();
    notice.return_spread = Some(Duration::from_secs(20));
    notice.siblings = vec!["https://b.example".to_owned()];
    notice
}

#[test]
fn a_notice_comes_before_the_drain_that_it_belongs_to_from_either_side() {
    for side in [Side::Caller, Side::Handler] {
        let mut p = Pair::new(Config::default());
        p.call();
        let now = p.now;
        let end = p.end(side);
        assert!(end.conn.tell(notice()));
        end.conn.drain(now, None);
        p.pump();
        let events = p.end(side.peer()).events();
        assert_eq!(events[0], Event::Notice(notice()), "{side:?}");
        assert!(matches!(events[1], Event::GoingAway { .. }), "{events:?}");
    }
}

#[test]
fn of_notices_that_were_not_sent_yet_the_later_replaces_what_it_has() {
    let mut p = Pair::new(Config::default());
    let mut later = Notice::new();
    later.return_spread = Some(Duration::from_secs(1));
    assert!(p.caller.conn.tell(notice()));
    assert!(p.caller.conn.tell(later.clone()));
    p.pump();
    later.siblings = notice().siblings;
    assert_eq!(p.handler.events(), [Event::Notice(later)]);
}

/// The frame is stray for a peer that does not know it.
#[test]
fn a_notice_is_sent_only_where_both_ends_offer_it() {
    let mut without = offer();
    without.notices = false;
    for (callers, handlers) in [(without, offer()), (offer(), without)] {
        let config = Config::default;
        let mut p = Pair::with_offers(config(), config(), callers, handlers);
        let told = [p.caller.conn.tell(notice()), p.handler.conn.tell(notice())];
        assert_eq!(told, [handlers.notices, callers.notices]);
        p.pump();
        // The end whose peer has not offered notices does not take one either.
        let heard = p.caller.events().len() + p.handler.events().len();
        assert_eq!(heard, 0);
    }
}

/// A reverse tunnel's gateway announces with its first frame that it routes calls.
#[test]
fn a_notice_waits_until_the_caller_has_announced_that_it_routes_calls() {
    let mut offers = offer();
    offers.ready = true;
    let mut p = Pair::with_offers(Config::default(), Config::default(), offers, offers);
    assert!(p.caller.conn.tell(notice()));
    p.pump();
    assert_eq!(p.handler.events(), []);
    p.caller.conn.announce_ready();
    p.pump();
    assert_eq!(
        p.handler.events(),
        [Event::PeerReady, Event::Notice(notice())]
    );
}

#[test]
fn a_notice_that_was_told_too_early_is_sent_when_the_tunnel_is_ready() {
    for (offers, told) in [(offer(), true), (Offer::none(), false)] {
        let mut p = Pair::unopened(Config::default(), Config::default());
        assert!(p.caller.conn.tell(notice()));
        p.start(offers, offers);
        p.pump();
        let heard = p.handler.events().contains(&Event::Notice(notice()));
        assert_eq!(heard, told);
        // Nothing is left that would keep the tunnel from ending.
        let id = p.caller.conn.open(p.now, "/a/b", Metadata::new());
        assert!(id.is_ok());
    }
}

#[test]
fn a_message_on_the_control_stream_that_is_no_notice_is_stray() {
    let mut p = Pair::new(Config::default());
    for (size, data) in [(9, "short"), (2, "\u{0}\u{0}")] {
        let data = match size {
            2 => bytes::Bytes::from_static(b"\xff\xff"),
            _ => data.into(),
        };
        let kind = FrameKind::Message {
            size,
            data,
            compressed: false,
        };
        let frame = tunnel_core::Frame {
            stream_id: StreamId::CONTROL,
            kind,
        };
        let handled = p.handler.conn.handle_frame(p.now, frame);
        assert_eq!(handled, Ok(()));
        assert_eq!(p.handler.events(), []);
    }
}

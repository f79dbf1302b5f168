//! The dialogs in which an operator confirms what a button does.

use maud::{Markup, html};

/// All dialogs. The script fills in the key.
pub(super) fn all() -> Markup {
    let of_key = html! {
        label { "Key " input name="key" required autocomplete="off" autocapitalize="off" spellcheck="false"; }
    };
    let reason = html! {
        label { "Reason, which the device is told " input name="reason" maxlength="200" autocomplete="off"; }
    };
    let times = [
        ("", "until it is allowed"),
        ("3600", "an hour"),
        ("86400", "a day"),
        ("604800", "a week"),
    ];
    html! {
        (dialog("kick", "Kick a device", "Its tunnels end, and its calls with them. It comes back.", &html! {
            (of_key) (reason)
        }))
        (dialog("deny", "Deny a key", "Its tunnels end, and it is refused from then on.", &html! {
            (of_key) (reason)
            label { "For " select name="seconds" {
                @for (value, name) in times { option value=(value) { (name) } }
            } }
        }))
        (dialog("allow", "Allow a key", "It may open tunnels again.", &of_key))
        (dialog(
            "drain",
            "Drain the gateway",
            "It takes no new tunnels and calls. There is no way back: a drained gateway is to be stopped.",
            &html! {
                label { "End calls in flight after (seconds) "
                    input name="seconds" type="number" min="0" max="86400" value="30" required; }
            },
        ))
    }
}

fn dialog(action: &str, title: &str, what: &str, fields: &Markup) -> Markup {
    let heading = format!("{action}-title");
    html! {
        dialog id=(action) aria-labelledby=(heading) {
            form method="dialog" {
                h2 id=(heading) { (title) }
                p { (what) }
                (fields)
                p.error role="alert" {}
                button.danger { (title) }
                " "
                button type="button" data-close { "Cancel" }
            }
        }
    }
}

//! What guest and runner talk over: a serial line of its own, which the kernel's
//! log does not go to. A line is a frame with a check sum; whatever else is
//! there is seen not to be one.

use crate::cli::output::Event;
use serde::{Deserialize, Serialize};

/// What every frame begins with.
const MARK: &str = "~lastbyte ";

/// What a guest has to say.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "guest", rename_all = "kebab-case")]
pub(super) enum Message {
    /// It runs, and could not load these modules.
    Booted { release: String, failed: Vec<String> },
    /// It still runs.
    Alive,
    /// Of the suite.
    Suite(Event),
    /// The suite printed something else, or to its standard error.
    Printed { line: String },
    /// Another program printed something.
    Output { line: String },
    /// The suite, or the other program, is over.
    Over { why: Ended },
}

/// How the suite ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It was stopped, for its time was over.
    OutOfTime,
    /// It was never begun.
    NotStarted(String),
}

/// One frame, with its newline.
pub(super) fn frame(message: &Message) -> String {
    let text = serde_json::to_string(message).unwrap_or_default();
    format!("{MARK}{:08x} {text}\n", crc32fast::hash(text.as_bytes()))
}

/// What a line holds.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    Message(Box<Message>),
    /// A frame once, and damaged since.
    Damaged,
    /// Not from the guest's side of this program.
    Other,
}

/// Reads one line.
pub(super) fn hear(line: &str) -> Heard {
    let Some((_, frame)) = line.split_once(MARK) else { return Heard::Other };
    let parsed = || {
        let (sum, text) = frame.trim_end().split_once(' ')?;
        let right = u32::from_str_radix(sum, 16).ok()? == crc32fast::hash(text.as_bytes());
        if right { serde_json::from_str(text).ok() } else { None }
    };
    parsed().map_or(Heard::Damaged, |message| Heard::Message(Box::new(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_heard() {
        let line = frame(&Message::Printed { line: "a\nb \u{fffd}".into() });
        assert_eq!(line.matches('\n').count(), 1);
        let Heard::Message(message) = hear(&line) else { panic!("{line}") };
        assert!(matches!(*message, Message::Printed { line } if line == "a\nb \u{fffd}"));
    }

    #[test]
    fn damage_is_noticed() {
        let line = frame(&Message::Over { why: Ended::Exited(0) });
        assert!(matches!(hear(&line.replace("exited", "exitec")), Heard::Damaged));
        assert!(matches!(hear(&line[..line.len() / 2]), Heard::Damaged));
        assert!(matches!(hear("[    1.0] random: crng init done"), Heard::Other));
        let behind = format!("garbage{line}");
        assert!(matches!(hear(&behind), Heard::Message(_)), "a frame behind something else");
    }
}

//! What the demo prints: steps, commands with their output, checks. Colour on a terminal only.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

const PLAIN: &str = "0";
const BOLD: &str = "1";
const GREEN: &str = "1;32";
const RED: &str = "1;31";

const INDENT: &str = "  ";

/// Standard output. If its reader has gone, as with `| head`, the checks go on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    colour: bool,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && env::var_os("TERM").is_some_and(|term| term != "dumb");
        Self { colour: wanted && io::stdout().is_terminal() }
    }

    /// The title of a step.
    pub(crate) fn heading(self, text: impl Display) {
        self.line("\n", BOLD, text, "\n");
    }

    /// What happens and why.
    pub(crate) fn say(self, text: impl Display) {
        self.line(INDENT, PLAIN, text, "");
    }

    /// A command that is run now.
    pub(crate) fn command(self, text: impl Display) {
        self.line(INDENT, BOLD, format_args!("$ {text}"), "");
    }

    /// What it printed.
    pub(crate) fn output(self, text: &str) {
        for line in text.lines() {
            self.line(INDENT, PLAIN, line, "");
        }
    }

    /// A check that held.
    pub(crate) fn ok(self, text: impl Display) {
        self.line(INDENT, GREEN, "ok: ", text);
    }

    /// The result, if all checks held.
    pub(crate) fn succeeded(self, text: impl Display) {
        self.line("\n", GREEN, "SUCCESS: ", text);
    }

    /// The result otherwise.
    pub(crate) fn failed(self, text: impl Display) {
        self.line("\n", RED, "FAILED: ", text);
    }

    fn line(self, before: &str, colour: &str, painted: impl Display, after: impl Display) {
        let mut out = io::stdout();
        let _ = if self.colour && colour != PLAIN {
            writeln!(out, "{before}\x1b[{colour}m{painted}\x1b[0m{after}")
        } else {
            writeln!(out, "{before}{painted}{after}")
        };
    }
}

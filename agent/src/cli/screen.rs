//! Where output goes: standard output and error, whether they are terminals, and colours.
//!
//! Nothing here panics when the reader of a pipe goes away: writing to standard output gives an error that ends the program
//! quietly, writing to standard error is tried and forgotten.
use std::io::{self, IsTerminal, Write};

use super::text;

/// Colours with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tint {
    /// As it is.
    Plain,
    /// Well.
    Good,
    /// On the way, or worth a look.
    Warn,
    /// Broken.
    Bad,
    /// At rest.
    Rest,
    /// Less important.
    Dim,
    /// Headings and names.
    Bold,
}

impl Tint {
    fn code(self) -> &'static str {
        match self {
            Tint::Plain => "",
            Tint::Good => "\x1b[32m",
            Tint::Warn => "\x1b[33m",
            Tint::Bad => "\x1b[31m",
            Tint::Rest => "\x1b[36m",
            Tint::Dim => "\x1b[2m",
            Tint::Bold => "\x1b[1m",
        }
    }

    /// The colour of a state of a vhost.
    pub(crate) fn of_state(state: &str) -> Self {
        match state {
            "running" => Tint::Good,
            "frozen" | "reclaimed" => Tint::Rest,
            "starting" | "stopping" => Tint::Warn,
            "failed" | "stuck" => Tint::Bad,
            "stopped" | "down" => Tint::Dim,
            _ => Tint::Plain,
        }
    }
}

/// Both outputs of the program.
pub(crate) struct Screen {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Standard output is a terminal.
    pub(crate) out_is_terminal: bool,
    /// Standard error is a terminal.
    pub(crate) err_is_terminal: bool,
    /// Colours are wanted.
    pub(crate) colour: bool,
    /// Columns of the terminal; None if it is none.
    pub(crate) width: Option<usize>,
}

impl Screen {
    /// The real ones.
    pub(crate) fn standard() -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        let width = out.is_terminal().then(|| {
            rustix::termios::tcgetwinsize(&out).map_or(80, |size| match size.ws_col {
                0 => 80,
                columns => usize::from(columns),
            })
        });
        Self {
            out_is_terminal: out.is_terminal(),
            err_is_terminal: err.is_terminal(),
            colour: !no_colour,
            width,
            out: Box::new(io::BufWriter::with_capacity(32 * 1024, out)),
            err: Box::new(err),
        }
    }

    /// Any two writers, for tests.
    #[cfg(test)]
    pub(crate) fn of(out: Box<dyn Write>, err: Box<dyn Write>, terminal: bool) -> Self {
        Self {
            out,
            err,
            out_is_terminal: terminal,
            err_is_terminal: false,
            colour: terminal,
            width: terminal.then_some(80),
        }
    }

    /// The text in a colour, if standard output wants colours.
    pub(crate) fn paint(&self, tint: Tint, text: &str) -> String {
        if self.colour && self.out_is_terminal && tint != Tint::Plain {
            format!("{}{text}\x1b[0m", tint.code())
        } else {
            text.to_owned()
        }
    }

    /// Text made by this program (already clean) and a line feed.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.write_all(b"\n")
    }

    /// Bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// JSON of the API as it is; on a terminal with harmful characters escaped, which keeps it the same JSON.
    pub(crate) fn json(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.out_is_terminal {
            self.out.write_all(text::clean_json(bytes).as_bytes())?;
        } else {
            self.out.write_all(bytes)?;
        }
        if bytes.last() != Some(&b'\n') {
            self.out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Everything written so far becomes visible.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// One line `fastctl: …` on standard error, made harmless.
    pub(crate) fn complain(&mut self, message: &str) {
        let _ = self.out.flush();
        let message = text::clean(message);
        let line = if self.colour && self.err_is_terminal {
            format!("{}fastctl:\x1b[0m {message}\n", Tint::Bad.code())
        } else {
            format!("fastctl: {message}\n")
        };
        let _ = self.err.write_all(line.as_bytes());
    }

    /// Shows (or with "" removes) a line of progress on standard error, if that is a terminal.
    pub(crate) fn progress(&mut self, text: &str) {
        if self.err_is_terminal {
            let _ = self.err.write_all(format!("\r\x1b[K{text}").as_bytes());
            let _ = self.err.flush();
        }
    }

    /// Bytes for standard error as they are.
    pub(crate) fn raw_err(&mut self, bytes: &[u8]) {
        let _ = self.err.write_all(bytes);
    }
}

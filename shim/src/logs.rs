//! The command's output: cut into lines, each with time, vhost and stream, at a bounded rate. Reading never waits for
//! writing to succeed: what cannot be kept is dropped and counted.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::Timespec;
use rustix::io::Errno;
use shim::protocol::LogRule;

use crate::log_file::LogFile;
use crate::log_line::{Lines, MAX_LINE, printable};
use crate::timestamp;

/// How long a line without an end may wait for the rest of it.
const UNFINISHED: u64 = 1_000_000_000;
/// Read at most this much after the command's end.
const LAST_WORDS: usize = 1 << 20;
/// Read at most this much at once, in bytes.
const CHUNK: usize = 16 * 1024;

/// Standard output or standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

#[derive(Debug)]
struct Source {
    pipe: Option<OwnedFd>,
    lines: Lines,
    /// When an unfinished line was last added to.
    since: u64,
}

/// Token bucket, in bytes.
#[derive(Debug)]
struct Bucket {
    tokens: u64,
    at: u64,
    /// Lines and bytes dropped since the last note; dropping goes on until half the burst is there again.
    dropped: Option<(u64, u64)>,
}

/// Both streams and where they go.
#[derive(Debug)]
pub(crate) struct Logs {
    vhost: String,
    rule: LogRule,
    file: LogFile,
    out: Source,
    err: Source,
    bucket: Bucket,
}

impl Logs {
    /// Keeps what comes from the pipes `out` and `err` (non-blocking) in `dir`.
    pub(crate) fn new(
        dir: OwnedFd,
        vhost: &str,
        rule: LogRule,
        out: OwnedFd,
        err: OwnedFd,
    ) -> Self {
        let source = |pipe| Source {
            pipe: Some(pipe),
            lines: Lines::default(),
            since: 0,
        };
        Self {
            vhost: vhost.to_owned(),
            rule,
            file: LogFile::new(dir, rule.file_bytes, rule.files),
            out: source(out),
            err: source(err),
            bucket: Bucket {
                tokens: rule.burst_bytes,
                at: timestamp::monotonic(),
                dropped: None,
            },
        }
    }

    /// Everything that must stay open.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open_streams()
            .map(|(_, fd)| fd)
            .chain([self.file.directory()])
    }

    /// What to wait for.
    pub(crate) fn open_streams(&self) -> impl Iterator<Item = (Stream, BorrowedFd<'_>)> {
        let streams = [(Stream::Out, &self.out), (Stream::Err, &self.err)];
        streams
            .into_iter()
            .filter_map(|(s, source)| source.pipe.as_ref().map(|p| (s, p.as_fd())))
    }

    /// How long to wait at most; None while nothing is pending, so that a quiet container never wakes up.
    pub(crate) fn timeout(&self) -> Option<Timespec> {
        let unfinished = [&self.out, &self.err]
            .into_iter()
            .filter(|s| !s.lines.is_empty())
            .map(|s| s.since + UNFINISHED);
        let resume = self.bucket.dropped.is_some().then(|| {
            let missing = (self.rule.burst_bytes / 2).saturating_sub(self.bucket.tokens);
            self.bucket
                .at
                .saturating_add(nanoseconds(missing, self.rule.rate_bytes))
        });
        let wait = unfinished
            .chain(resume)
            .min()?
            .saturating_sub(timestamp::monotonic());
        let (seconds, rest) = (wait / 1_000_000_000, wait % 1_000_000_000);
        Some(Timespec {
            tv_sec: i64::try_from(seconds).unwrap_or(3600),
            tv_nsec: rest.try_into().unwrap_or(0),
        })
    }

    /// Reads once from a stream that is ready; false if there was nothing (more).
    pub(crate) fn read(&mut self, stream: Stream) -> bool {
        // Not filled with anything first: mostly a few bytes come.
        let mut space = [MaybeUninit::uninit(); CHUNK];
        let source = self.source(stream);
        let got: &[u8] = match source
            .pipe
            .as_ref()
            .map(|p| rustix::io::read(p, &mut space))
        {
            Some(Ok((got, _))) if !got.is_empty() => got,
            Some(Err(Errno::AGAIN | Errno::INTR)) | None => &[],
            Some(_) => {
                source.pipe = None;
                &[]
            }
        };
        if got.is_empty() && source.lines.is_empty() {
            return false;
        }
        let now = timestamp::monotonic();
        source.since = now;
        let mut lines = std::mem::take(&mut source.lines);
        let prefix = self.prefix(stream);
        lines.feed(got, |raw, cut| self.line(&prefix, raw, cut, now));
        if self.source(stream).pipe.is_none() {
            lines.finish(|raw, cut| self.line(&prefix, raw, cut, now));
        }
        self.source(stream).lines = lines;
        self.file.flush();
        !got.is_empty()
    }

    /// Does what has become due.
    pub(crate) fn tick(&mut self) {
        let unfinished = !(self.out.lines.is_empty() && self.err.lines.is_empty());
        if !unfinished && self.bucket.dropped.is_none() {
            return;
        }
        let now = timestamp::monotonic();
        for stream in [Stream::Out, Stream::Err] {
            let source = self.source(stream);
            if !source.lines.is_empty() && now >= source.since + UNFINISHED {
                self.finish_line(stream, now);
            }
        }
        if self.bucket.dropped.is_some() {
            self.refill(now);
            if self.bucket.tokens >= self.rule.burst_bytes / 2 {
                self.report_dropped();
            }
        }
        self.file.flush();
    }

    /// Adds a line of init's own.
    pub(crate) fn note(&mut self, text: &str) {
        let line = format!("{}{text}\n", self.prefix(Stream::Err));
        self.file.add(&line);
        self.file.flush();
    }

    /// Reads what is left and writes everything out; after the command's end.
    pub(crate) fn finish(&mut self) {
        for stream in [Stream::Out, Stream::Err] {
            let mut left = LAST_WORDS;
            while left > 0 && self.read(stream) {
                left = left.saturating_sub(CHUNK);
            }
            if !self.source(stream).lines.is_empty() {
                self.finish_line(stream, timestamp::monotonic());
            }
        }
        if self.bucket.dropped.is_some() {
            self.report_dropped();
        }
        self.file.flush();
    }

    fn source(&mut self, stream: Stream) -> &mut Source {
        match stream {
            Stream::Out => &mut self.out,
            Stream::Err => &mut self.err,
        }
    }

    fn prefix(&self, stream: Stream) -> String {
        let name = match stream {
            Stream::Out => "out",
            Stream::Err => "err",
        };
        format!(
            "{} {} {name} ",
            timestamp::format(timestamp::now()),
            self.vhost
        )
    }

    fn finish_line(&mut self, stream: Stream, now: u64) {
        let prefix = self.prefix(stream);
        let mut lines = std::mem::take(&mut self.source(stream).lines);
        lines.finish(|raw, cut| self.line(&prefix, raw, cut, now));
        self.source(stream).lines = lines;
    }

    /// One line, or a part of one that was `cut` off because it is too long.
    fn line(&mut self, prefix: &str, raw: &[u8], cut: bool, now: u64) {
        let size = (prefix.len() + raw.len() + 1) as u64;
        if self.bucket.dropped.is_some() || self.bucket.tokens < size {
            self.refill(now);
            let needed = if self.bucket.dropped.is_some() {
                self.rule.burst_bytes / 2
            } else {
                size
            };
            if self.bucket.tokens < needed {
                let (lines, bytes) = self.bucket.dropped.unwrap_or((0, 0));
                self.bucket.dropped = Some((lines + u64::from(!cut), bytes + raw.len() as u64));
                return;
            }
            self.report_dropped();
        }
        self.bucket.tokens = self.bucket.tokens.saturating_sub(size);
        // Escaping makes up to four bytes of one.
        for (text, more) in printable(raw, MAX_LINE) {
            let mark = if more || cut { "…" } else { "" };
            self.file.add(&format!("{prefix}{text}{mark}\n"));
        }
    }

    fn refill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.bucket.at);
        let earned = u128::from(passed) * u128::from(self.rule.rate_bytes) / 1_000_000_000;
        if earned > 0 {
            let earned = u64::try_from(earned).unwrap_or(u64::MAX);
            self.bucket.tokens = self
                .bucket
                .tokens
                .saturating_add(earned)
                .min(self.rule.burst_bytes);
            self.bucket.at = now;
        }
    }

    fn report_dropped(&mut self) {
        if let Some((lines, bytes)) = self.bucket.dropped.take() {
            let line = format!(
                "{}… dropped {lines} lines ({bytes} bytes)\n",
                self.prefix(Stream::Err)
            );
            self.file.add(&line);
        }
    }
}

/// How long `bytes` take at `rate` bytes a second.
fn nanoseconds(bytes: u64, rate: u64) -> u64 {
    let ns = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

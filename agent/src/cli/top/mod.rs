//! `top`: the live sites, every second. Asks for those alone, so that sleeping ones cost nothing.

mod draw;
mod model;
#[cfg(test)]
mod tests;

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Method;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::client::{Call, Client};
use super::failure::Failure;
use super::screen::{Screen, Tint};
use super::table::{Column, Table};
use super::{text, units};
use model::{Model, Reading, Sort};

/// Between two readings.
const STEP: Duration = Duration::from_secs(1);
/// How often the thread that reads keys looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);
const PATH: &str = "/v1/vhosts?state=running,frozen,reclaimed,stopping,stuck&host=true";

fn call() -> Call<'static> {
    Call::host(Method::GET, PATH)
}

/// Live on a terminal, once elsewhere.
pub(crate) async fn run(client: &Client, screen: &mut Screen, json: bool) -> Result<(), Failure> {
    let first = client.ask(call()).await?;
    if json {
        return Ok(screen.json(&first.body)?);
    }
    let mut model = Model::default();
    model.take(first.read()?);
    if !screen.out_is_terminal || !std::io::stdin().is_terminal() {
        tokio::time::sleep(STEP).await;
        model.take(client.ask(call()).await?.read()?);
        return snapshot(screen, &model);
    }
    screen.flush()?;
    let colour = screen.colour;
    let ended = live(client, &mut model, colour).await?;
    match ended {
        0 => Ok(()),
        signal => Err(Failure::Exit(128 + signal)),
    }
}

/// The terminal as it was, whatever happens: also after a panic, by the hook that `try_init` sets.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Tells the thread that reads keys to end.
struct Keys(Arc<AtomicBool>);

impl Drop for Keys {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn no_terminal(error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot use this terminal: {error}"))
}

/// Until somebody has seen enough; gives the signal that ended it, or 0.
async fn live(client: &Client, model: &mut Model, colour: bool) -> Result<u8, Failure> {
    let signals = |kind| signal(kind).map_err(|e| no_terminal(&e));
    let (mut term, mut hup) = (
        signals(SignalKind::terminate())?,
        signals(SignalKind::hangup())?,
    );
    let mut int = signals(SignalKind::interrupt())?;
    let mut terminal = ratatui::try_init().map_err(|e| no_terminal(&e))?;
    let _restore = Restore;
    let (send_reading, mut readings) = mpsc::channel(1);
    let refresh = async {
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + STEP, STEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let answer = client.ask(call()).await;
            let reading = answer.and_then(|answer| answer.read::<Reading>());
            if send_reading.send(reading).await.is_err() {
                return;
            }
        }
    };
    tokio::pin!(refresh);
    let (mut keys, _reader) = read_keys();
    loop {
        paint(&mut terminal, model, colour)?;
        tokio::select! {
            () = &mut refresh => return Ok(0),
            ended = any(&mut term, &mut hup, &mut int) => return Ok(ended),
            Some(reading) = readings.recv() => match reading {
                Ok(reading) => model.take(reading),
                Err(failure) => model.trouble = Some(text::clean(&failure.to_string()).into_owned()),
            },
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    let height = terminal.size().map_or(24, |size| size.height);
                    if pressed(model, key, draw::page(height)) {
                        return Ok(0);
                    }
                }
                // A new size is painted as it is.
                Some(_) => {}
                None => return Ok(0),
            },
        }
    }
}

async fn any(term: &mut Signal, hup: &mut Signal, int: &mut Signal) -> u8 {
    tokio::select! {
        _ = term.recv() => 15,
        _ = hup.recv() => 1,
        _ = int.recv() => 2,
    }
}

fn paint(terminal: &mut DefaultTerminal, model: &Model, colour: bool) -> Result<(), Failure> {
    let painted = terminal.draw(|frame| draw::draw(frame, model, colour));
    painted.map(drop).map_err(|e| no_terminal(&e))
}

/// Events of the terminal, read by a thread of its own, until the second part is dropped.
fn read_keys() -> (mpsc::Receiver<Event>, Keys) {
    let (send, receive) = mpsc::channel(16);
    let ended = Arc::new(AtomicBool::new(false));
    let stop = ended.clone();
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let event = match event::poll(LOOK) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            // Without a terminal there is nobody to show anything to.
            let Ok(event) = event else { return };
            if send.blocking_send(event).is_err() {
                return;
            }
        }
    });
    (receive, Keys(ended))
}

/// Does what a key means; true ends it.
fn pressed(model: &mut Model, key: KeyEvent, page: usize) -> bool {
    let most = model.shown().len().saturating_sub(page);
    let mut by = |sort| {
        // The same key again turns it round.
        model.reverse = model.sort == sort && !model.reverse;
        model.sort = sort;
        model.offset = 0;
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return true,
        KeyCode::Char('q') | KeyCode::Esc => return true,
        KeyCode::Char('c') => by(Sort::Cpu),
        KeyCode::Char('m') => by(Sort::Memory),
        KeyCode::Char('i') => by(Sort::Io),
        KeyCode::Char('n') => by(Sort::Name),
        KeyCode::Char('o') => by(Sort::Owner),
        KeyCode::Char('r') => model.reverse = !model.reverse,
        KeyCode::Char('t') | KeyCode::Tab => {
            model.owners = !model.owners;
            model.offset = 0;
        }
        KeyCode::Up | KeyCode::Char('k') => model.offset = model.offset.saturating_sub(1),
        KeyCode::Down | KeyCode::Char('j') => model.offset = (model.offset + 1).min(most),
        KeyCode::PageUp => model.offset = model.offset.saturating_sub(page),
        KeyCode::PageDown => model.offset = (model.offset + page).min(most),
        KeyCode::Home => model.offset = 0,
        KeyCode::End => model.offset = most,
        _ => {}
    }
    false
}

/// All lines once, as a table.
fn snapshot(screen: &mut Screen, model: &Model) -> Result<(), Failure> {
    let column = |title, right| Column {
        title,
        right,
        flexible: !right,
    };
    let mut table = Table::new(&[
        column("VHOST", false),
        column("OWNER", false),
        column("STATE", false),
        column("CPU%", true),
        column("LIMIT", true),
        column("MEM", true),
        column("LIMIT", true),
        column("IO/s", true),
        column("PIDS", true),
    ]);
    for line in model.shown() {
        let limit = |limit: Option<f64>| limit.map(|n| format!("{n:.0}%")).unwrap_or_default();
        let cells = [
            line.name,
            line.owner,
            line.state,
            format!("{:.1}", line.cpu),
            limit(line.cpu_limit),
            units::bytes(line.memory),
            line.memory_limit.map(units::bytes).unwrap_or_default(),
            units::bytes(line.io as u64),
            line.pids.to_string(),
        ];
        let cells: Vec<(&str, Tint)> = cells.iter().map(|c| (c.as_str(), Tint::Plain)).collect();
        table.row(&cells);
    }
    for line in table.lines(screen) {
        screen.line(&line)?;
    }
    Ok(())
}

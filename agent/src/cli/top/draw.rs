//! The screen of `top`. Without colours, everything can still be told.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line as Text, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::model::{Line, Model, Sort};
use crate::cli::units;

/// Characters of a bar, with its brackets.
const BAR: usize = 8;
pub(super) const KEYS: &str =
    "q quit  c cpu  m memory  i io  n name  o owner  r reverse  t owners  ↑↓ scroll";

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, colour: bool) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(5),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(header(model, colour, head)), head);
    frame.render_widget(table(model, colour, body), body);
    let keys = match &model.trouble {
        Some(trouble) => Span::styled(trouble.as_str(), tint(colour, Color::Red)),
        None => Span::raw(KEYS),
    };
    frame.render_widget(Paragraph::new(keys), foot);
}

/// How many lines of the table fit.
pub(crate) fn page(height: u16) -> usize {
    usize::from(height.saturating_sub(7))
}

fn tint(colour: bool, what: Color) -> Style {
    match colour {
        true => Style::new().fg(what),
        false => Style::new(),
    }
}

fn header(model: &Model, colour: bool, area: Rect) -> Vec<Text<'static>> {
    let host = &model.host;
    let [one, five, fifteen] = host.load;
    let cpus = host.cpus.max(1);
    let width = usize::from(area.width).clamp(40, 100) / 3;
    let used = model.cpu() / (cpus as f64 * 100.0);
    let memory = &host.memory;
    let taken = (100.0 - memory.available_percent()) / 100.0;
    let pressure = match &host.pressure {
        Some(pressure) => format!(
            "waiting for (10 s)  cpu {:.1} %  memory {:.1} %  storage {:.1} %",
            pressure.cpu.some.avg10, pressure.memory.some.avg10, pressure.io.some.avg10
        ),
        None => "this kernel has no pressure information".to_owned(),
    };
    vec![
        Text::from(format!(
            "{} live sites   load {one:.2} {five:.2} {fifteen:.2}   {cpus} CPUs",
            model.live()
        ))
        .style(Style::new().add_modifier(Modifier::BOLD)),
        Text::from(vec![
            Span::raw("cpu     "),
            bar(used, width, colour),
            Span::raw(format!(" {:.0} % used by sites", used * 100.0)),
        ]),
        Text::from(vec![
            Span::raw("memory  "),
            bar(taken, width, colour),
            Span::raw(format!(
                " {} of {} used, {} available",
                units::bytes(memory.used_bytes()),
                units::bytes(memory.total_bytes),
                units::bytes(memory.available_bytes)
            )),
        ]),
        Text::from(pressure),
    ]
}

/// `[|||   ]`; nothing where nothing limits.
fn bar(part: f64, width: usize, colour: bool) -> Span<'static> {
    let inside = width.saturating_sub(2);
    let part = if part.is_finite() {
        part.clamp(0.0, 1.0)
    } else {
        1.0
    };
    let full = (part * inside as f64).round() as usize;
    let text = format!("[{}{}]", "|".repeat(full), " ".repeat(inside - full));
    let what = match part {
        part if part >= 0.9 => Color::Red,
        part if part >= 0.7 => Color::Yellow,
        _ => Color::Green,
    };
    Span::styled(text, tint(colour, what))
}

/// Of a limit, how much is used.
fn against(used: f64, limit: Option<f64>, colour: bool) -> Span<'static> {
    match limit {
        Some(limit) => bar(used / limit, BAR, colour),
        None => Span::raw(format!("{:^BAR$}", "-")),
    }
}

fn table(model: &Model, colour: bool, area: Rect) -> Table<'static> {
    let lines = model.shown();
    // Two lines for the headings; whoever has scrolled beyond the end sees the last page.
    let fits = usize::from(area.height.saturating_sub(1));
    let offset = model.offset.min(lines.len().saturating_sub(fits));
    let rows: Vec<Row<'static>> = lines
        .iter()
        .skip(offset)
        .take(fits)
        .map(|line| row(line, model.owners, colour))
        .collect();
    let heading = |title: &str, sort: Option<Sort>, right: usize| {
        let text = format!("{title:>right$}");
        let chosen = sort == Some(model.sort);
        let style = Style::new().add_modifier(match chosen {
            true => Modifier::BOLD | Modifier::REVERSED,
            false => Modifier::BOLD,
        });
        Cell::from(Span::styled(text, style))
    };
    let (name, state) = match model.owners {
        true => ("OWNER", "SITES"),
        false => ("VHOST", "STATE"),
    };
    let header = Row::new([
        heading(name, Some(Sort::Name), 0),
        heading("OWNER", (!model.owners).then_some(Sort::Owner), 0),
        heading(state, None, 0),
        heading("CPU%", Some(Sort::Cpu), 6),
        heading("OF LIMIT", None, 0),
        heading("MEM", Some(Sort::Memory), 6),
        heading("OF LIMIT", None, 0),
        heading("IO/s", Some(Sort::Io), 6),
        heading("PIDS", None, 5),
    ]);
    let bar = Constraint::Length(BAR as u16);
    let widths = [
        Constraint::Min(12),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(6),
        bar,
        Constraint::Length(6),
        bar,
        Constraint::Length(6),
        Constraint::Length(5),
    ];
    Table::new(rows, widths).header(header).column_spacing(1)
}

fn row(line: &Line, owners: bool, colour: bool) -> Row<'static> {
    let state = match line.state.as_str() {
        "running" => Style::new(),
        "stuck" => tint(colour, Color::Red),
        _ => tint(colour, Color::Cyan),
    };
    let owner = if owners {
        String::new()
    } else {
        line.owner.clone()
    };
    Row::new([
        Cell::from(line.name.clone()),
        Cell::from(owner),
        Cell::from(Span::styled(line.state.clone(), state)),
        Cell::from(format!("{:>6.1}", line.cpu)),
        Cell::from(against(line.cpu, line.cpu_limit, colour)),
        Cell::from(format!("{:>6}", units::bytes(line.memory))),
        Cell::from(against(
            line.memory as f64,
            line.memory_limit.map(|limit| limit as f64),
            colour,
        )),
        Cell::from(format!("{:>6}", units::bytes(line.io as u64))),
        Cell::from(format!("{:>5}", line.pids)),
    ])
}

//! The view on the screen: a frame of what the model holds, and of nothing else.

use super::model::{Model, Open, Sort};
use super::rates::{Watched, bars, rate};
use crate::mailbox::plural;
use crate::output::{age, clean};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{
    Block, Borders, List, ListState, Paragraph, Row, Sparkline, Table, TableState,
};
use std::collections::VecDeque;

/// How many bars a row shows.
const BARS: u16 = 10;

const LIST_KEYS: &str = "q quit  ↑↓ select  Enter open  s sort  r reverse  / filter  \
                         X purge all  T retry dead  g refresh";
const OPEN_KEYS: &str = "q quit  Esc back  ↑↓ select  x delete  t retry dead  X purge all  \
                         T retry all dead  g refresh";
const TYPING_KEYS: &str = "Enter keep  Esc clear  (KIND/ID finds an instance that is not shown)";

/// Draws the view.
pub(super) fn draw(model: &Model, frame: &mut Frame<'_>) {
    let [head, figures, body, notice, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(3),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(title(model), head);
    self::figures(model, frame, figures);
    match &model.open {
        Some(open) => self::open(model, open, frame, body),
        None => rows(model, frame, body),
    }
    frame.render_widget(self::notice(model), notice);
    let help = match (&model.open, model.typing) {
        (_, true) => TYPING_KEYS,
        (Some(_), false) => OPEN_KEYS,
        (None, false) => LIST_KEYS,
    };
    frame.render_widget(Paragraph::new(help).style(dim()), keys);
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// Bold, and red where colours are wanted.
fn bad(model: &Model) -> Style {
    match model.colour {
        true => bold().fg(Color::Red),
        false => bold(),
    }
}

fn title(model: &Model) -> Line<'_> {
    let mut spans = vec![
        Span::styled("abide top  ", bold()),
        Span::raw(model.title.as_str()),
        Span::raw(format!("  every {}", duration(model.every))),
    ];
    if model.samples == 0 {
        spans.push(Span::styled("  looking…", dim()));
    }
    Line::from(spans)
}

fn duration(time: std::time::Duration) -> String {
    match time.subsec_millis() {
        0 => format!("{} s", time.as_secs()),
        _ => format!("{} ms", time.as_millis()),
    }
}

/// The totals, with sparklines.
fn figures(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let [words, backlog, work] = Layout::horizontal([
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ])
    .spacing(2)
    .areas(area);
    let totals = match model.round {
        Some(round) => {
            let pace = match round.refreshes {
                1 => String::new(),
                more => format!(" (in {more} refreshes)"),
            };
            let messages = plural(round.messages, "message");
            let instances = plural(round.instances, "busy instance");
            format!("{messages} in {instances}{pace}")
        }
        None => "messages: counting".to_owned(),
    };
    let failing = model.watched.values();
    let failing = failing.filter(|of| of.seen.attempts > 0).count();
    let dead: u64 = model.watched.values().map(|of| of.seen.dead).sum();
    let handled: f64 = model.watched.values().filter_map(|of| of.handled).sum();
    let watched = format!(
        "{} watched: {failing} failing, {dead} dead, ≥{} handled/s",
        model.watched.len(),
        rate(Some(handled), false)
    );
    let work_now = format!(
        "{} transactions/s of {}",
        rate(model.work, false),
        match model.processes() {
            1 => "1 process".to_owned(),
            more => format!("{more} processes"),
        }
    );
    let lines = [totals, watched, work_now].map(Line::from).to_vec();
    frame.render_widget(Paragraph::new(lines), words);
    spark(frame, backlog, "messages", &model.backlog);
    spark(frame, work, "transactions/s", &model.works);
}

fn spark(frame: &mut Frame<'_>, area: Rect, name: &str, history: &VecDeque<u64>) {
    let width = usize::from(area.width);
    let skipped = history.len().saturating_sub(width);
    let shown: Vec<u64> = history.iter().skip(skipped).copied().collect();
    let most = shown.iter().max().copied().unwrap_or(0);
    let title = Line::styled(format!("{name} (to {most})"), dim());
    let block = Block::new().title_top(title).borders(Borders::TOP);
    frame.render_widget(Sparkline::default().block(block).data(shown), area);
}

/// The instances.
fn rows(model: &Model, frame: &mut Frame<'_>, area: Rect) {
    let rows = model.rows();
    let selected = rows
        .iter()
        .position(|row| Some(&row.seen.instance) == model.selected.as_ref());
    let shown = rows.iter().map(|row| self::row(model, row));
    let name = rows.iter().map(|row| width(&row.seen.instance.to_string()));
    let name = name.max().unwrap_or(0).clamp(8, 32);
    let widths = [
        Constraint::Length(name),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(5),
        Constraint::Length(6),
        Constraint::Length(5),
        Constraint::Length(5),
        Constraint::Length(BARS),
        Constraint::Fill(1),
    ];
    let heads = [
        ("INSTANCE", Sort::Name),
        ("MESSAGES", Sort::Messages),
        ("+/S", Sort::Growth),
        ("≥DONE/S", Sort::Handled),
        ("LAG", Sort::Lag),
        ("TRIES", Sort::Attempts),
        ("DEAD", Sort::Dead),
    ];
    let mut head: Vec<String> = heads
        .into_iter()
        .map(|(name, sort)| {
            let mark = match (sort == model.sort, model.reversed) {
                (false, _) => "",
                (true, false) => "▼",
                (true, true) => "▲",
            };
            format!("{mark}{name}")
        })
        .collect();
    head.extend(["LOCK", "TREND", "REMARKS"].map(str::to_owned));
    let table = Table::new(shown, widths)
        .header(Row::new(head).style(bold()))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1);
    let mut state = TableState::new().with_selected(selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn width(text: &str) -> u16 {
    u16::try_from(text.chars().count()).unwrap_or(u16::MAX)
}

fn row<'a>(model: &Model, watched: &Watched) -> Row<'a> {
    let seen = &watched.seen;
    let since = |time: Option<u64>| time.map_or_else(|| "-".to_owned(), |of| age(model.now_ms, of));
    let more = if seen.more_dead { "+" } else { "" };
    let row = Row::new([
        clean(&seen.instance.to_string()),
        seen.messages.to_string(),
        rate(watched.growth, true),
        rate(watched.handled, false),
        since(seen.oldest_ms),
        seen.attempts.to_string(),
        format!("{}{more}", seen.dead),
        since(seen.locked_ms),
        bars(&watched.lengths, usize::from(BARS)),
        seen.remarks.clone(),
    ]);
    match seen.attempts > 0 {
        true => row.style(bad(model)),
        false => row,
    }
}

/// An instance, closely.
fn open(model: &Model, open: &Open, frame: &mut Frame<'_>, area: Rect) {
    let name = clean(&open.instance.to_string());
    let Some(shown) = &open.shown else {
        let text = format!("looking at {name}…");
        frame.render_widget(Paragraph::new(text).style(dim()), area);
        return;
    };
    let watched = model.watched.get(&open.instance);
    let summary = match watched {
        Some(watched) => format!(
            "{}, {}{}, {}/s growth, ≥{} handled/s  {}",
            plural(watched.seen.messages, "message"),
            plural(watched.seen.dead, "dead letter"),
            if watched.seen.more_dead {
                " or more"
            } else {
                ""
            },
            rate(watched.growth, true),
            rate(watched.handled, false),
            watched.seen.remarks
        ),
        None => "nothing is stored of it any more".to_owned(),
    };
    let mut head = vec![Line::styled(name, bold()), Line::from(summary)];
    head.extend(shown.lock.iter().map(|line| format!("lock: {line}").into()));
    let bad_lines = shown.damaged.iter();
    head.extend(bad_lines.map(|line| Line::styled(format!("damaged: {line}"), bad(model))));
    let most = usize::from(area.height / 3).max(2);
    head.truncate(most);
    let head_height = u16::try_from(head.len()).unwrap_or(2);
    let [top, state, entries] = Layout::vertical([
        Constraint::Length(head_height),
        Constraint::Fill(1),
        Constraint::Fill(1),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(Text::from(head)), top);
    let more = |more: bool| if more { ", and more" } else { "" };
    let title = format!("state{}", more(shown.more_state));
    let lines: Vec<Line<'_>> = match shown.state.is_empty() {
        true => vec![Line::styled("none", dim())],
        false => shown
            .state
            .iter()
            .map(|line| Line::raw(line.as_str()))
            .collect(),
    };
    let block = Block::new().title(title).borders(Borders::TOP);
    frame.render_widget(Paragraph::new(lines).block(block), state);
    let title = format!(
        "messages{}; dead letters{}",
        more(shown.more_messages),
        more(shown.more_letters)
    );
    let lines = shown.entries.iter().map(|entry| entry.line.as_str());
    let list = List::new(lines)
        .block(Block::new().title(title).borders(Borders::TOP))
        .highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let selected = (!shown.entries.is_empty()).then_some(open.selected);
    let mut state = ListState::default().with_selected(selected);
    frame.render_stateful_widget(list, entries, &mut state);
}

/// What is asked, typed, or wrong, whichever matters most.
fn notice(model: &Model) -> Line<'_> {
    if let Some(action) = &model.asking {
        return Line::styled(model.question(action), bold());
    }
    if let Some(outage) = &model.outage {
        let text = format!("what is shown is old: {}", clean(outage));
        return Line::styled(text, bad(model));
    }
    if let Some(notice) = &model.notice {
        let style = if notice.is_bad { bad(model) } else { bold() };
        return Line::styled(clean(&notice.text), style);
    }
    if model.typing || !model.filter.is_empty() {
        let cursor = if model.typing { "_" } else { "" };
        return Line::raw(format!("filter: {}{cursor}", clean(&model.filter)));
    }
    if let Some(damage) = &model.damage {
        let text = format!("{} damaged, see `doctor`: {damage}", model.damaged);
        return Line::styled(text, bad(model));
    }
    Line::styled(
        "≥: at least; what comes and goes between two looks, or is never stored, is not seen",
        dim(),
    )
}

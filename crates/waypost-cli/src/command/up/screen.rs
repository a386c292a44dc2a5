//! The terminal of `waypost up`: a live table while the services start, then their output above a
//! footer that stays at the bottom.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use unicode_width::UnicodeWidthChar;
use waypost_runner::control::{Control, ServiceState, ServiceView, StackView};
use waypost_runner::{Level, Line, LogSink, Stream, Supervisor, printable};

use crate::style::{allows_colours, terminal_size};
use crate::terminal::escaped;

/// How often the table is drawn while the services start.
const FRAME: Duration = Duration::from_millis(100);
/// The number of lines of output that are buffered while the table is shown.
const HELD: usize = 500;
/// How many of the last lines are shown again when the filter is changed.
const SHOWN_AGAIN: usize = 40;
/// Cyan, blue, magenta and their bright forms: none of them is the colour of a state.
const COLOURS: [u8; 6] = [36, 34, 35, 96, 94, 95];

/// Draws on a terminal. Clones refer to the same one.
#[derive(Clone)]
pub(super) struct Screen(Arc<Mutex<State>>);

struct State {
    colour: bool,
    /// The rows of the table or footer at the bottom, which are drawn again after each line.
    bottom: Vec<String>,
    /// How many of these rows are on the terminal.
    drawn: usize,
    /// Lines to be written when the table is removed. `None` after that: lines are then written directly.
    held: Option<VecDeque<Line>>,
    names: Vec<String>,
    filter: Filter,
    /// The terminal was closed.
    is_closed: bool,
}

/// Which lines are shown.
#[derive(Clone, Debug, Default)]
struct Filter {
    service: Option<String>,
    level: Option<Level>,
    text: String,
}

impl Filter {
    fn accepts(&self, line: &Line) -> bool {
        self.matches(&line.service, line.level(), &line.text)
    }

    /// Whether a line of this service, with this level and text, is shown.
    fn matches(&self, service: &str, level: Option<Level>, text: &str) -> bool {
        self.service.as_ref().is_none_or(|wanted| wanted == service)
            && self
                .level
                .is_none_or(|wanted| level.is_some_and(|level| level <= wanted))
            && (self.text.is_empty() || text.to_lowercase().contains(&self.text.to_lowercase()))
    }

    fn describe(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.service.clone());
        parts.extend(self.level.map(|level| format!("level {level}")));
        if !self.text.is_empty() {
            parts.push(format!("{:?}", self.text));
        }
        match parts.is_empty() {
            true => "everything".to_owned(),
            false => parts.join(", "),
        }
    }
}

impl Screen {
    /// `None` if stdout is not a terminal that can be drawn on.
    pub(super) fn new() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if !io::stdout().is_terminal() || is_dumb {
            return None;
        }
        Some(Self(Arc::new(Mutex::new(State {
            colour: allows_colours(),
            bottom: Vec::new(),
            drawn: 0,
            held: Some(VecDeque::new()),
            names: Vec::new(),
            filter: Filter::default(),
            is_closed: false,
        }))))
    }

    /// Shows the table until the services have started or failed.
    pub(super) async fn follow_start(&self, control: &Control) {
        let began = Instant::now();
        loop {
            let rows = self
                .lock()
                .table(&control.stack(), began.elapsed(), terminal_size());
            self.lock().draw_bottom(rows);
            sleep(FRAME).await;
        }
    }

    /// Leaves the final table and a text on the terminal, and starts to show the output.
    pub(super) fn started(&self, control: &Control, took: Duration, text: &str) {
        let mut state = self.lock();
        let stack = control.stack();
        let table = state.table(&stack, took, terminal_size());
        state.bottom = footer(&stack);
        let mut above = table.join("\n");
        above.push('\n');
        above.push_str(text);
        let held = state.held.take().unwrap_or_default();
        let lines: Vec<Line> = held.into();
        above.push_str(&state.rendered(&lines));
        state.write_above(&above);
    }

    /// Removes the footer, at the end.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.bottom.clear();
        state.held = None;
        state.write_above("");
    }

    /// Updates the footer and handles keys. Returns when the user stops the stack.
    pub(super) async fn interact(&self, control: &Control, supervisor: &Supervisor) {
        let mut events = supervisor.events();
        let mut keys = Keys::start();
        let mut typed: Option<String> = None;
        loop {
            let key = tokio::select! {
                event = events.next() => match event {
                    Some(_) => None,
                    None => return std::future::pending().await,
                },
                key = keys.next() => Some(key),
            };
            let stack = control.stack();
            match (key, &mut typed) {
                (None, _) => {}
                (Some(b'\r' | b'\n'), Some(text)) => {
                    let text = std::mem::take(text);
                    typed = None;
                    self.choose(supervisor, |filter| filter.text = text);
                }
                // Escape.
                (Some(0x1b), Some(_)) => {
                    typed = None;
                    self.choose(supervisor, |filter| filter.text.clear());
                }
                // Backspace.
                (Some(0x7f | 0x08), Some(text)) => drop(text.pop()),
                (Some(key), Some(text)) if (b' '..0x7f).contains(&key) => {
                    text.push(char::from(key));
                }
                (Some(_), Some(_)) => {}
                (Some(b'q'), None) => return,
                (Some(b'/'), None) => typed = Some(String::new()),
                (Some(b'c'), None) => self.lock().clear(),
                (Some(b'l'), None) => self.choose(supervisor, |filter| {
                    filter.level = match filter.level {
                        None => Some(Level::Info),
                        Some(Level::Info) => Some(Level::Warn),
                        Some(Level::Warn) => Some(Level::Error),
                        Some(_) => None,
                    };
                }),
                (Some(b'0'), None) => self.choose(supervisor, |filter| *filter = Filter::default()),
                (Some(digit @ b'1'..=b'9'), None) => {
                    if let Some(service) = started(&stack).nth(usize::from(digit - b'1')) {
                        let name = service.name.clone();
                        self.choose(supervisor, |filter| filter.service = Some(name));
                    }
                }
                (Some(_), None) => {}
            }
            let mut rows = footer(&stack);
            if let (Some(text), Some(last)) = (&typed, rows.last_mut()) {
                *last = format!("  find: {text}_   (Enter shows the lines, Esc cancels)");
            }
            self.lock().draw_bottom(rows);
        }
    }

    /// Changes the filter, and shows the last lines that it accepts.
    fn choose(&self, supervisor: &Supervisor, change: impl FnOnce(&mut Filter)) {
        let mut state = self.lock();
        change(&mut state.filter);
        let filter = state.filter.clone();
        let lines = supervisor.last_lines(|line| filter.accepts(line), SHOWN_AGAIN);
        let ruler = format!("── {} ──\n", escaped(&filter.describe()));
        let text = ruler + &state.rendered(&lines);
        state.write_above(&text);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for Screen {
    fn set_instances(&mut self, names: &[String]) {
        self.lock().names = names.to_vec();
    }

    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let mut state = self.lock();
        if let Some(held) = &mut state.held {
            // The table has already shown the runner's own lines.
            held.extend(
                lines
                    .iter()
                    .filter(|line| line.stream != Stream::Runner)
                    .cloned(),
            );
            let surplus = held.len().saturating_sub(HELD);
            held.drain(..surplus);
            return Ok(());
        }
        let filter = &state.filter;
        let shown: Vec<Line> = lines
            .iter()
            .filter(|line| filter.accepts(line))
            .cloned()
            .collect();
        if !shown.is_empty() {
            let text = state.rendered(&shown);
            state.write_above(&text);
        }
        if state.is_closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

impl State {
    /// The table of the services: the state of each, and how long it has been in it. It fits into a
    /// terminal with this many columns and rows.
    fn table(
        &self,
        stack: &StackView,
        elapsed: Duration,
        (columns, rows): (usize, usize),
    ) -> Vec<String> {
        let title = match &stack.file {
            Some(file) => {
                let home = std::env::var("HOME").unwrap_or_default();
                format!("  {} · {}", stack.name, from_home(file, &home))
            }
            None => format!("  {}", stack.name),
        };
        let time = format!("{:.1} s", elapsed.as_secs_f64());
        let mut table = vec![format!("{title}  {time}")];
        let width = started(stack)
            .map(|it| label(it).chars().count())
            .max()
            .unwrap_or(0);
        for service in started(stack) {
            let (sign, colour) = sign(service.state);
            let port = service.address.as_ref().and_then(|it| it.rsplit_once(':'));
            let port = port.map_or_else(String::new, |(_, port)| format!(":{port}"));
            let row = format!(
                "{:width$}  {port:<6}  {}",
                label(service),
                progress(service, SystemTime::now())
            );
            table.push(format!("  {} {row}", self.painted(colour, sign)));
            if service.state.is_trouble() {
                table.extend(
                    service
                        .last_error
                        .iter()
                        .map(|it| format!("      {}", escaped(it))),
                );
                table.extend(
                    service
                        .advice
                        .iter()
                        .map(|it| format!("      → {}", escaped(it))),
                );
            }
        }
        // The table must fit, or it could not be drawn again at the same place.
        shorten(&mut table, rows.saturating_sub(2).max(3));
        table.iter().map(|row| cut(row, columns)).collect()
    }

    /// Draws the rows at the bottom again.
    fn draw_bottom(&mut self, rows: Vec<String>) {
        if rows != self.bottom || self.drawn == 0 {
            self.bottom = rows;
            self.write_above("");
        }
    }

    /// Writes lines above the bottom.
    fn write_above(&mut self, text: &str) {
        let (columns, _) = terminal_size();
        let mut out = String::new();
        if self.drawn > 0 {
            // To the first row of the bottom, and erase everything below.
            out.push_str(&format!("\x1b[{}F\x1b[J", self.drawn));
        }
        out.push_str(text);
        for row in &self.bottom {
            out.push_str(&cut(row, columns));
            out.push('\n');
        }
        self.drawn = self.bottom.len();
        let mut stdout = io::stdout().lock();
        let written = stdout
            .write_all(out.as_bytes())
            .and_then(|()| stdout.flush());
        self.is_closed |= written.is_err();
    }

    fn clear(&mut self) {
        self.drawn = 0;
        self.write_above("\x1b[2J\x1b[H");
    }

    fn rendered(&self, lines: &[Line]) -> String {
        let width = self.names.iter().map(String::len).max().unwrap_or(0);
        let mut out = String::new();
        for line in lines {
            let index = self.names.iter().position(|name| **name == *line.instance);
            let colour = COLOURS[index.unwrap_or(0) % COLOURS.len()];
            let name = self.painted(Some(colour), &format!("{:width$}", line.instance));
            let text = printable(without_time(&line.text), self.colour);
            let text = match line.stream {
                Stream::Runner => self.painted(Some(2), &format!("── {text}")),
                Stream::Stdout | Stream::Stderr => text.into_owned(),
            };
            let reset = if self.colour { "\x1b[0m" } else { "" };
            let mark = if line.truncated { " …" } else { "" };
            out.push_str(&format!("  {name}  {text}{reset}{mark}\n"));
        }
        out
    }

    fn painted(&self, colour: Option<u8>, text: &str) -> String {
        match colour {
            Some(colour) if self.colour => format!("\x1b[{colour}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// A path with `~` for `home`, the user's folder.
fn from_home(path: &str, home: &str) -> String {
    match path.strip_prefix(home) {
        Some(rest) if !matches!(home, "" | "/") && rest.starts_with('/') => format!("~{rest}"),
        _ => path.to_owned(),
    }
}

/// The services that were started with the stack.
fn started(stack: &StackView) -> impl Iterator<Item = &ServiceView> {
    stack.services.iter().filter(|service| service.wanted > 0)
}

/// `orders ×2`
fn label(service: &ServiceView) -> String {
    match service.instances.len() {
        0 | 1 => service.name.clone(),
        count => format!("{} ×{count}", service.name),
    }
}

fn sign(state: ServiceState) -> (&'static str, Option<u8>) {
    match state {
        ServiceState::Ready | ServiceState::Running | ServiceState::Completed => ("✓", Some(32)),
        ServiceState::CrashLooping | ServiceState::Failed | ServiceState::Unreachable => {
            ("✗", Some(31))
        }
        ServiceState::Degraded => ("▲", Some(33)),
        _ => ("◌", None),
    }
}

/// The state of a service, in one line.
fn progress(service: &ServiceView, now: SystemTime) -> String {
    let since = || {
        let since = humantime::parse_rfc3339(&service.since).ok()?;
        let elapsed = now.duration_since(since).ok()?;
        Some(format!("{:.1} s", elapsed.as_secs_f64()))
    };
    let why = service.why.as_deref().map(escaped).unwrap_or_default();
    match service.state {
        ServiceState::Ready | ServiceState::Running if service.ready == service.wanted => {
            match start_time(service) {
                Some(took) => format!("ready in {:.1} s", took.as_secs_f64().max(0.1)),
                None => "reachable".to_owned(),
            }
        }
        ServiceState::Completed => "done".to_owned(),
        ServiceState::Building => format!("{}  is being built", since().unwrap_or_default()),
        ServiceState::Starting | ServiceState::Waiting | ServiceState::Running => {
            let why = if why.is_empty() {
                "is starting".into()
            } else {
                why
            };
            format!("{}  {why}", since().unwrap_or_default())
        }
        _ => {
            let next = service
                .instances
                .iter()
                .find_map(|it| it.next_start_at.as_deref());
            let next = next.and_then(|at| humantime::parse_rfc3339(at).ok());
            let next = next.and_then(|at| at.duration_since(now).ok());
            match next {
                Some(left) => format!("{why}, again in {:.0} s", left.as_secs_f64().ceil()),
                None => why.into_owned(),
            }
        }
    }
}

/// How long the slowest instance took to become ready.
fn start_time(service: &ServiceView) -> Option<Duration> {
    let times = service.instances.iter().filter_map(|instance| {
        let started = humantime::parse_rfc3339(instance.started_at.as_deref()?).ok()?;
        let ready = humantime::parse_rfc3339(&instance.since).ok()?;
        ready.duration_since(started).ok()
    });
    times.max()
}

/// The addresses, the problems, and the keys.
fn footer(stack: &StackView) -> Vec<String> {
    let (ready, bad): (Vec<_>, Vec<_>) = started(stack).partition(|it| it.ready == it.wanted);
    let total = ready.len() + bad.len();
    let mut status = format!("  {} · {} of {total} ready", stack.name, ready.len());
    if !bad.is_empty() {
        let names: Vec<_> = bad.iter().map(|it| it.name.as_str()).collect();
        status += &format!(" · ✗ {}", names.join(", "));
    }
    let mut addresses = Vec::new();
    addresses.extend(
        stack
            .dashboard
            .as_ref()
            .map(|url| format!("Dashboard {url}/")),
    );
    addresses.extend(stack.gateway.as_ref().map(|url| format!("Gateway {url}/")));
    vec![
        "  ── l level  / find  1-9 one service  0 all  c clear  q or Ctrl-C stops all ──"
            .to_owned(),
        status,
        format!("  {}", addresses.join("   ")),
    ]
}

/// Replaces the last rows of a table that has more than `limit` by a row with their number.
fn shorten(table: &mut Vec<String>, limit: usize) {
    if table.len() > limit {
        let left = table.split_off(limit - 1).len();
        table.push(format!("  … and {left} more lines: waypost ps"));
    }
}

/// The row cut to this many columns. Escape sequences take up no columns.
fn cut(row: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut width = 0;
    let mut rest = row.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            out.push(c);
            for c in rest.by_ref() {
                out.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        width += c.width().unwrap_or(0);
        if width >= columns {
            out.push('…');
            break;
        }
        out.push(c);
    }
    out
}

/// Removes a time at the beginning of a line: on a terminal, lines are shown as soon as they are written.
fn without_time(text: &str) -> &str {
    let is_digit = |index: usize| text.as_bytes().get(index).is_some_and(u8::is_ascii_digit);
    let has_time = text.get(4..5) == Some("-")
        && matches!(text.get(10..11), Some("T" | " "))
        && text.get(13..14) == Some(":")
        && [0, 3, 5, 8, 11, 14].into_iter().all(is_digit);
    if !has_time {
        return text;
    }
    let end = text[11..].find(' ').map(|at| 11 + at);
    end.map_or(text, |end| text[end..].trim_start())
}

/// Reads single keys. Dropping it restores the terminal.
struct Keys {
    keys: mpsc::Receiver<u8>,
    before: Option<Termios>,
}

impl Keys {
    fn start() -> Self {
        let (sender, keys) = mpsc::channel(16);
        let stdin = io::stdin();
        // In the background, reading would stop this process.
        let is_foreground = tcgetpgrp(&stdin).is_ok_and(|it| it == rustix::process::getpgrp());
        let before = tcgetattr(&stdin).ok().filter(|_| is_foreground);
        if let Some(before) = &before {
            let mut raw = before.clone();
            // Ctrl-C still sends a signal.
            raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
            let _ = tcsetattr(&stdin, OptionalActions::Now, &raw);
            // The thread ends with the process, because a read can't be interrupted.
            std::thread::spawn(move || {
                for key in io::stdin().lock().bytes().map_while(Result::ok) {
                    if sender.blocking_send(key).is_err() {
                        return;
                    }
                }
            });
        }
        Self { keys, before }
    }

    async fn next(&mut self) -> u8 {
        match self.keys.recv().await {
            Some(key) => key,
            // No key was pressed.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SINCE: &str = "2026-01-31T12:00:00Z";

    /// 1.5 s after that.
    fn now() -> SystemTime {
        humantime::parse_rfc3339(SINCE).unwrap() + Duration::from_millis(1500)
    }

    fn view(state: &str, ready: usize, why: Option<&str>) -> Value {
        json!({
            "name": "web", "kind": "process", "state": state, "since": SINCE, "why": why,
            "ready": ready, "wanted": 1, "restarts": 0, "after": [], "uses": [], "links": {},
            "profiles": [], "instances": [],
        })
    }

    fn with(mut view: Value, more: Value) -> Value {
        for (key, value) in more.as_object().unwrap() {
            view[key] = value.clone();
        }
        view
    }

    fn instance(started_at: Option<&str>, next_start_at: Option<&str>) -> Value {
        json!({
            "id": "web", "state": "ready", "since": SINCE, "restarts": 0, "started_at": started_at,
            "next_start_at": next_start_at,
        })
    }

    fn stack(services: &[Value]) -> StackView {
        serde_json::from_value(json!({
            "schema": 1, "name": "shop", "directory": "/", "started_at": SINCE, "event_id": 1,
            "pid": 1, "registry": "http://r", "services": services,
        }))
        .unwrap()
    }

    fn state(colour: bool) -> State {
        State {
            colour,
            bottom: Vec::new(),
            drawn: 0,
            held: None,
            names: ["web", "orders-1"].map(str::to_owned).to_vec(),
            filter: Filter::default(),
            is_closed: false,
        }
    }

    #[test]
    fn a_service_has_a_sign_and_a_text_for_its_state() {
        for (state, ready, why, expected) in [
            ("ready", 1, None, "✓ reachable"),
            ("running", 1, None, "✓ reachable"),
            ("running", 0, None, "✓ 1.5 s  is starting"),
            ("completed", 1, None, "✓ done"),
            ("building", 0, Some("x"), "◌ 1.5 s  is being built"),
            ("starting", 0, None, "◌ 1.5 s  is starting"),
            ("waiting", 0, Some("needs db"), "◌ 1.5 s  needs db"),
            ("degraded", 0, Some("1 of 2"), "▲ 1 of 2"),
            // Some of its instances are not ready.
            ("ready", 0, Some("1 of 2"), "✓ 1 of 2"),
            ("failed", 0, Some("exited\x1b[2J"), "✗ exited\\u{1b}[2J"),
            ("crash-looping", 0, None, "✗ "),
            ("unreachable", 0, Some("refused"), "✗ refused"),
            ("stopping", 0, None, "◌ "),
        ] {
            let service: ServiceView = serde_json::from_value(view(state, ready, why)).unwrap();
            let shown = format!("{} {}", sign(service.state).0, progress(&service, now()));
            assert_eq!(shown, expected, "{state}");
        }
        let colours = [
            ServiceState::Completed,
            ServiceState::Failed,
            ServiceState::Degraded,
        ];
        assert_eq!(
            colours.map(|state| sign(state).1),
            [Some(32), Some(31), Some(33)]
        );
        assert_eq!(sign(ServiceState::Starting).1, None);
    }

    #[test]
    fn the_times_of_the_start_and_of_the_next_one_are_shown() {
        let shown = |view: Value, instances: &[Value]| {
            let service = serde_json::from_value(with(view, json!({ "instances": instances })));
            progress(&service.unwrap(), now())
        };
        let started = |at: &str| instance(Some(at), None);
        let (early, late) = ("2026-01-31T11:59:58Z", "2026-01-31T11:59:59.500Z");
        let ready = || view("ready", 1, None);
        // That of the slowest instance.
        let slowest = shown(
            ready(),
            &[started(late), started(early), instance(None, None)],
        );
        assert_eq!(slowest, "ready in 2.0 s");
        assert_eq!(shown(ready(), &[started(SINCE)]), "ready in 0.1 s");
        let failed = || view("failed", 0, Some("exited"));
        let next = |at: &str| instance(None, Some(at));
        let soon = shown(
            failed(),
            &[instance(None, None), next("2026-01-31T12:00:03.600Z")],
        );
        assert_eq!(soon, "exited, again in 3 s");
        assert_eq!(shown(failed(), &[next(SINCE)]), "exited");
    }

    #[test]
    fn the_table_has_the_started_services_with_their_ports_and_problems() {
        let instances = json!({ "instances": [instance(None, None), instance(None, None)] });
        let orders = json!({ "name": "orders", "address": "localhost:4100" });
        let orders = with(with(view("ready", 1, None), orders), instances);
        let bad = json!({ "last_error": "no \x07database", "advice": "start it" });
        let bad = with(view("failed", 0, Some("exited")), bad);
        let off = with(
            view("disabled", 0, None),
            json!({ "name": "off", "wanted": 0 }),
        );
        let mut stack = stack(&[orders, off, bad]);
        let table = |stack: &StackView, size: (usize, usize)| {
            state(false).table(stack, Duration::from_millis(2345), size)
        };
        assert_eq!(
            table(&stack, (80, 24)),
            [
                "  shop  2.3 s",
                "  ✓ orders ×2  :4100   reachable",
                "  ✗ web                exited",
                "      no \\u{7}database",
                "      → start it",
            ]
        );
        // Only a problem has these lines.
        stack.services[2].state = ServiceState::Starting;
        assert_eq!(table(&stack, (80, 24)).len(), 3);
        stack.file = Some("/elsewhere/waypost.toml".to_owned());
        assert_eq!(
            table(&stack, (80, 24))[0],
            "  shop · /elsewhere/waypost.toml  2.3 s"
        );
        stack.services[2].state = ServiceState::Failed;
        let small = table(&stack, (12, 6));
        assert_eq!(small[0], "  shop · /e…");
        assert_eq!(small.len(), 4);
        assert_eq!(table(&stack, (80, 1)).len(), 3);
        assert_eq!(table(&stack, (80, 7)).len(), 5);
    }

    #[test]
    fn the_footer_has_the_problems_and_the_addresses() {
        let other = with(view("failed", 0, None), json!({ "name": "orders" }));
        let off = with(
            view("disabled", 0, None),
            json!({ "name": "off", "wanted": 0 }),
        );
        let mut stack = stack(&[view("ready", 1, None), other, off]);
        assert_eq!(
            footer(&stack)[1..],
            ["  shop · 1 of 2 ready · ✗ orders", "  "]
        );
        (stack.services[1].ready, stack.gateway) = (1, Some("http://g".to_owned()));
        assert_eq!(
            footer(&stack)[1..],
            ["  shop · 2 of 2 ready", "  Gateway http://g/"]
        );
        stack.dashboard = Some("http://d".to_owned());
        assert_eq!(
            footer(&stack)[2],
            "  Dashboard http://d/   Gateway http://g/"
        );
    }

    #[test]
    fn a_filter_selects_by_service_level_and_text() {
        let filter = |service: Option<&str>, level: Option<Level>, text: &str| Filter {
            service: service.map(str::to_owned),
            level,
            text: text.to_owned(),
        };
        for (filter, expected, description) in [
            (filter(None, None, ""), true, "everything"),
            (filter(Some("web"), None, ""), true, "web"),
            (filter(Some("we"), None, ""), false, "we"),
            (filter(None, Some(Level::Warn), ""), true, "level warn"),
            (filter(None, Some(Level::Info), ""), true, "level info"),
            (filter(None, Some(Level::Error), ""), false, "level error"),
            (filter(None, None, "sLOW"), true, "\"sLOW\""),
            (filter(None, None, "fast"), false, "\"fast\""),
            (
                filter(Some("web"), Some(Level::Warn), "slow"),
                true,
                "web, level warn, \"slow\"",
            ),
            (
                filter(Some("web"), Some(Level::Warn), "x"),
                false,
                "web, level warn, \"x\"",
            ),
        ] {
            let matches = filter.matches("web", Some(Level::Warn), "Slow answer");
            assert_eq!(matches, expected, "{description}");
            assert_eq!(filter.describe(), description);
        }
        assert!(!filter(None, Some(Level::Trace), "").matches("web", None, "no level"));
    }

    #[test]
    fn a_table_that_is_too_long_says_how_many_rows_are_left_out() {
        let table = |rows: usize| {
            let mut table: Vec<_> = (1..=rows).map(|row| row.to_string()).collect();
            shorten(&mut table, 3);
            table
        };
        assert_eq!(table(3), ["1", "2", "3"]);
        let expected = ["1", "2", "  … and 2 more lines: waypost ps"];
        assert_eq!(table(4), expected);
    }

    #[test]
    fn the_folder_of_the_user_is_a_tilde() {
        let file = "/home/ada/shop/waypost.toml";
        for (home, expected) in [
            ("/home/ada", "~/shop/waypost.toml"),
            ("/home/ad", file),
            ("/root", file),
            ("/", file),
            ("", file),
        ] {
            assert_eq!(from_home(file, home), expected, "{home:?}");
        }
    }

    #[test]
    fn rows_are_cut_by_their_visible_width() {
        assert_eq!(cut("\x1b[31mabcdef\x1b[0m", 4), "\x1b[31mabc…");
        assert_eq!(cut("東京都", 5), "東京…");
        assert_eq!(cut("abc", 80), "abc");
    }

    #[test]
    fn a_time_at_the_beginning_is_left_out() {
        for (text, expected) in [
            (
                "2026-11-29T06:35:40.133661Z  INFO registered",
                "INFO registered",
            ),
            ("2026-11-29 06:35:40 x", "x"),
            ("2026-11-29T06:35:40Z", "2026-11-29T06:35:40Z"),
            ("GET /2026-11-29 200", "GET /2026-11-29 200"),
            ("é", "é"),
            ("2026-11-29T06:35:40+01:00   a  b", "a  b"),
            // Each of these is no time.
            ("2026_11-29T06:35:40 x", "2026_11-29T06:35:40 x"),
            ("2026-11-29_06:35:40 x", "2026-11-29_06:35:40 x"),
            ("2026-11-29T06_35:40 x", "2026-11-29T06_35:40 x"),
            ("y026-11-29T06:35:40 x", "y026-11-29T06:35:40 x"),
            ("202y-11-29T06:35:40 x", "202y-11-29T06:35:40 x"),
            ("2026-m1-29T06:35:40 x", "2026-m1-29T06:35:40 x"),
            ("2026-11-d9T06:35:40 x", "2026-11-d9T06:35:40 x"),
            ("2026-11-29Th6:35:40 x", "2026-11-29Th6:35:40 x"),
            ("2026-11-29T06:m5:40 x", "2026-11-29T06:m5:40 x"),
            ("2026-11-29T06:", "2026-11-29T06:"),
        ] {
            assert_eq!(without_time(text), expected);
        }
    }
}

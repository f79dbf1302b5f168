//! The table in a terminal.

use anyhow::Result;
use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures::StreamExt as _;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Row, Table};
use tokio::sync::mpsc;
use tonic::Status;

use super::model::Snapshot;
use crate::admin::client::failed;

/// The widths of the columns with numbers.
const WIDTHS: [u16; 6] = [7, 9, 8, 9, 10, 9];

/// Shows snapshots until they end, `count` were shown, or the user has seen enough.
pub(super) async fn run(
    snapshots: mpsc::Receiver<Result<Snapshot, Status>>,
    count: usize,
) -> Result<()> {
    let mut terminal = ratatui::try_init()?;
    let shown = show(&mut terminal, snapshots, count).await;
    ratatui::restore();
    shown
}

async fn show(
    terminal: &mut ratatui::DefaultTerminal,
    mut snapshots: mpsc::Receiver<Result<Snapshot, Status>>,
    count: usize,
) -> Result<()> {
    let mut events = EventStream::new();
    let mut snapshot = Snapshot::default();
    let mut problem = Some("waiting for the gateway".to_owned());
    let mut shown = 0;
    while shown < count {
        terminal.draw(|frame| draw(frame, &snapshot, problem.as_deref()))?;
        tokio::select! {
            event = events.next() => match event.transpose()? {
                Some(Event::Key(key)) if is_end(&key) => return Ok(()),
                Some(_) => {}
                None => return Ok(()),
            },
            next = snapshots.recv() => match next {
                Some(Ok(next)) => {
                    (snapshot, problem) = (next, None);
                    shown += 1;
                }
                // The last numbers stay.
                Some(Err(status)) => problem = Some(failed(status).to_string()),
                None => return Ok(()),
            },
        }
    }
    Ok(())
}

fn is_end(key: &KeyEvent) -> bool {
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    key.kind != KeyEventKind::Release && (ctrl_c || quit)
}

fn draw(frame: &mut Frame<'_>, snapshot: &Snapshot, problem: Option<&str>) {
    let strong = Style::new().add_modifier(Modifier::BOLD);
    let layout = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]);
    let [top, body] = layout.areas(frame.area());
    let summary = problem.map_or_else(|| snapshot.summary(), str::to_owned);
    frame.render_widget(Line::styled(summary, strong), top);

    let room = usize::from(body.height.saturating_sub(1));
    let rows = snapshot
        .rows
        .iter()
        .take(room)
        .map(|row| cells(snapshot.cells(row)));
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let names = snapshot.header();
    // Those of gateways and errors.
    let rest = names.len().saturating_sub(WIDTHS.len() + 1);
    let header = cells(names.into_iter().map(str::to_owned).collect()).style(reversed);
    let numbers = WIDTHS.map(Constraint::Length);
    // The key goes before all else; errors have what is left.
    let longest = snapshot
        .rows
        .iter()
        .map(|row| snapshot.cells(row)[0].chars().count())
        .max();
    let key = u16::try_from(longest.unwrap_or_default()).unwrap_or(u16::MAX);
    let key = key.clamp(3, (body.width / 2).max(3));
    let widths = [Constraint::Min(key)].into_iter().chain(numbers);
    let widths = widths.chain(std::iter::repeat_n(Constraint::Fill(1), rest));
    frame.render_widget(Table::new(rows, widths).header(header), body);
}

/// A row, with the numbers at the right.
fn cells(cells: Vec<String>) -> Row<'static> {
    let cell = |(column, text): (usize, String)| match (1..=WIDTHS.len()).contains(&column) {
        true => Cell::from(Text::from(text).right_aligned()),
        false => Cell::from(text),
    };
    cells.into_iter().enumerate().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::top::model::tests::snapshot;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn the_table_fits_the_terminal() {
        let mut terminal = Terminal::new(TestBackend::new(90, 4)).expect("infallible");
        let snapshot = snapshot();
        terminal
            .draw(|frame| draw(frame, &snapshot, None))
            .expect("infallible");
        let text = terminal.backend().to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(
            lines[1].contains("CALLS/S") && lines[1].contains("LAST ERROR"),
            "{text}"
        );
        assert!(
            lines[2].contains("5.0 kB") && lines[3].contains("4.0 kB"),
            "{text}"
        );
        terminal
            .draw(|frame| draw(frame, &snapshot, Some("the gateway is gone")))
            .expect("infallible");
        assert!(
            terminal
                .backend()
                .to_string()
                .contains("the gateway is gone")
        );
    }
}

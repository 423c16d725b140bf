//! The terminal: its alternate screen, without a cursor, in raw mode. Every end restores it.

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::Print;
use crossterm::terminal::{
    self, BeginSynchronizedUpdate, Clear, ClearType, EndSynchronizedUpdate, EnterAlternateScreen,
    LeaveAlternateScreen,
};
use crossterm::{cursor, execute, queue};
use std::io::{self, Stdout, Write};
use std::panic;
use std::time::Duration;

/// The screen. Dropping it restores the terminal.
pub(super) struct Screen {
    stdout: Stdout,
}

/// A key or another event that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    End,
    Resized,
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn open() -> io::Result<Screen> {
        // The message of a panic would vanish with the alternate screen.
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            report(info);
        }));
        terminal::enable_raw_mode()?;
        let mut screen = Screen { stdout: io::stdout() };
        execute!(screen.stdout, EnterAlternateScreen, cursor::Hide)?;
        Ok(screen)
    }

    /// Shows the lines that fit.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let (columns, rows) = terminal::size()?;
        queue!(self.stdout, BeginSynchronizedUpdate, Clear(ClearType::All))?;
        for (row, line) in (0..rows).zip(lines) {
            let shown: String = line.chars().filter(|c| !c.is_control()).take(usize::from(columns)).collect();
            queue!(self.stdout, cursor::MoveTo(0, row), Print(shown))?;
        }
        queue!(self.stdout, EndSynchronizedUpdate)?;
        self.stdout.flush()
    }

    /// Waits for a key for at most this long.
    pub(super) fn key(&self, wait: Duration) -> io::Result<Option<Key>> {
        if !event::poll(wait)? {
            return Ok(None);
        }
        Ok(meaning(&event::read()?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    // A terminal that has been closed needs nothing.
    let _ = execute!(io::stdout(), cursor::Show, LeaveAlternateScreen);
    let _ = terminal::disable_raw_mode();
}

fn meaning(event: &Event) -> Option<Key> {
    match event {
        Event::Resize(..) => Some(Key::Resized),
        Event::Key(key) if key.kind == KeyEventKind::Press => match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Some(Key::End),
            // In raw mode, Ctrl-C is a key.
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::End),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossterm::event::KeyEvent;

    #[test]
    fn keys_that_end_it() {
        let key = |code, modifiers| meaning(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Key::End));
        assert_eq!(key(KeyCode::Esc, KeyModifiers::NONE), Some(Key::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(meaning(&Event::Resize(80, 24)), Some(Key::Resized));
    }
}

//! The terminal while it shows a frame. However this ends, it is left as it was found: dropped, by a panic, suspended.

use std::io::{self, BufWriter, Stdout, stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use rustix::process::{Signal, getpid, kill_process};

/// Whether the terminal is as [`enter`] makes it.
static ENTERED: AtomicBool = AtomicBool::new(false);

pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        leave_on_panic();
        enter()?;
        match terminal() {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                leave();
                Err(error)
            }
        }
    }

    pub(super) fn draw(&mut self, paint: impl FnOnce(Rect, &mut Buffer)) -> io::Result<()> {
        self.terminal
            .draw(|frame| paint(frame.area(), frame.buffer_mut()))?;
        Ok(())
    }

    /// Stops this process, as Ctrl-Z does, with the terminal as the shell expects it, and goes on when it is continued.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        leave();
        // Nothing happens where there is no shell to continue it.
        kill_process(getpid(), Signal::TSTP)?;
        self.renew()
    }

    /// Takes the terminal anew, as somebody else may have left it.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        leave();
        enter()?;
        // Which knows of nothing that is shown: all is drawn again.
        self.terminal = terminal()?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// Of its own buffer: a frame is written in one piece.
fn terminal() -> io::Result<Terminal<CrosstermBackend<BufWriter<Stdout>>>> {
    Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(
        1 << 16,
        stdout(),
    )))
}

fn enter() -> io::Result<()> {
    ENTERED.store(true, Ordering::Relaxed);
    let entered = enable_raw_mode()
        .and_then(|()| execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All), Hide));
    if entered.is_err() {
        leave();
    }
    entered
}

/// Once: to leave the alternate screen again would move the cursor.
fn leave() {
    if ENTERED.swap(false, Ordering::Relaxed) {
        // A terminal that is gone needs nothing.
        let _ = execute!(stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

/// So that what a panic says is read, and at the left margin.
fn leave_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            leave();
            earlier(panic);
        }));
    });
}

//! How long the client minds a daemon that was there and is not: uphold is upgraded, crashes and goes on, or
//! is killed and started again, and nobody who asks it something need know.

use std::time::{Duration, Instant};

use super::failure::Failure;

/// How long it may be away.
const AWAY: Duration = Duration::from_secs(10);
/// The same where it has taken its socket along, as at its orderly end.
const GONE: Duration = Duration::from_secs(1);
/// A connection that has lasted so long was a good one, whatever its end.
const LONG: Duration = Duration::from_secs(1);
/// So many in a row that broke sooner, without a word, are no daemon's that comes back.
const BREAKS: u32 = 100;
/// Between two attempts.
const BETWEEN: Duration = Duration::from_millis(20);

/// That of one request, or of one stream.
#[derive(Debug)]
pub(super) struct Patience {
    tried: Instant,
    breaks: u32,
    /// Since when nobody lets us in,
    away: Option<Instant>,
    /// and since when there is no socket.
    gone: Option<Instant>,
}

impl Patience {
    /// Full.
    pub(super) fn new() -> Patience {
        Patience { tried: Instant::now(), breaks: 0, away: None, gone: None }
    }

    /// It answers.
    pub(super) fn renew(&mut self) {
        *self = Patience::new();
    }

    /// Waits a moment where asking again may help; else gives back what to say.
    pub(super) async fn again(&mut self, failure: Failure) -> Result<(), Failure> {
        let now = Instant::now();
        match failure {
            Failure::Broken { .. } => {
                let long = now - self.tried >= LONG;
                self.breaks = if long { 1 } else { self.breaks + 1 };
                (self.away, self.gone) = (None, None);
                if self.breaks > BREAKS {
                    return Err(failure);
                }
            }
            Failure::NoDaemon { path, why, gone } => {
                let away = now - *self.away.get_or_insert(now);
                self.gone = if gone { self.gone.or(Some(now)) } else { None };
                if away > AWAY || self.gone.is_some_and(|since| now - since > GONE) {
                    let why =
                        format!("it was there, and has not come back within {}s ({why})", away.as_secs());
                    return Err(Failure::NoDaemon { path, why, gone });
                }
            }
            Failure::NotPermitted(_)
            | Failure::NoSuchUnit(_)
            | Failure::TimedOut(_)
            | Failure::Failed(_)
            | Failure::Gone => return Err(failure),
        }
        tokio::time::sleep(BETWEEN).await;
        self.tried = Instant::now();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken() -> Failure {
        Failure::Broken { why: "eof".to_owned(), sent: true }
    }

    #[test]
    fn breaks_without_a_word_and_what_is_no_break_end_it() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut patience = Patience::new();
            let mut minded = 0;
            while patience.again(broken()).await.is_ok() {
                minded += 1;
            }
            assert_eq!(minded, BREAKS);
            patience.renew();
            assert!(patience.again(broken()).await.is_ok());
            assert!(patience.again(Failure::Failed("no".to_owned())).await.is_err());
        });
    }
}

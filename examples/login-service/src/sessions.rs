//! Who is logged in.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a login lasts.
const LASTS: Duration = Duration::from_secs(8 * 3600);
/// Logins at once; the oldest gives way.
const MANY: usize = 100_000;

/// Tokens and whose they are.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<HashMap<String, Session>>);

#[derive(Debug)]
struct Session {
    name: String,
    ends: Instant,
}

impl Sessions {
    /// Logs a user in: a token of 256 random bits.
    pub(crate) fn begin(&self, name: &str, now: Instant) -> Result<String, getrandom::Error> {
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MANY {
            sessions.retain(|_, session| session.ends > now);
            if let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.ends).map(|(token, _)| token.clone())
                && sessions.len() >= MANY
            {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(token.clone(), Session { name: name.to_owned(), ends: now + LASTS });
        Ok(token)
    }

    /// Whose token it is, while it lasts.
    pub(crate) fn name(&self, token: &str, now: Instant) -> Option<String> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.get(token).filter(|session| session.ends > now).map(|session| session.name.clone())
    }

    /// Logs out; an unknown token is logged out already.
    pub(crate) fn end(&self, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_until_it_is_ended_or_too_old() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let token = sessions.begin("ada", now).unwrap();
        assert_eq!(token.len(), 64);
        assert_ne!(token, sessions.begin("ada", now).unwrap());
        assert_eq!(sessions.name(&token, now + LASTS / 2).as_deref(), Some("ada"));
        assert_eq!(sessions.name(&token, now + LASTS), None);
        assert_eq!(sessions.name("forged", now), None);
        sessions.end(&token);
        assert_eq!(sessions.name(&token, now), None);
    }
}

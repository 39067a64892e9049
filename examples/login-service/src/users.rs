//! The users file: names and Argon2id hashes.

use std::collections::HashMap;
use std::fmt;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};

/// Who may log in.
#[derive(Debug)]
pub struct Users {
    hashes: HashMap<String, String>,
    /// What an unknown name is checked against, so that it takes as long as a known one.
    nobody: String,
}

/// What is wrong with a users file.
#[derive(Debug, PartialEq, Eq)]
pub struct UsersError {
    line: usize,
    expected: &'static str,
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "users file, line {}: expected {}", self.line, self.expected)
    }
}

impl std::error::Error for UsersError {}

impl Users {
    /// Reads `name:hash` lines; empty ones and those beginning with `#` are skipped.
    ///
    /// # Errors
    /// The line that is none, and what was expected.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut hashes = HashMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let wrong = |expected| UsersError { line: i + 1, expected };
            let (name, hash) = line.split_once(':').ok_or(wrong("name:hash"))?;
            let parsed = PasswordHash::new(hash).map_err(|_| wrong("a hash in PHC format: $argon2id$..."))?;
            if parsed.algorithm.as_str() != "argon2id" {
                return Err(wrong("an argon2id hash"));
            }
            if hashes.insert(name.to_owned(), hash.to_owned()).is_some() {
                return Err(wrong("a name that is not there yet"));
            }
        }
        // The parameters of a known user, so that the work is the same; any password fails against another's.
        let nobody = hashes.values().next().cloned().unwrap_or_default();
        Ok(Self { hashes, nobody })
    }

    /// Whether the password is the user's. Takes some ten milliseconds of work by design, whether the name is known or not.
    pub fn check(&self, name: &str, password: &str) -> bool {
        let known = self.hashes.get(name);
        let hash = known.unwrap_or(&self.nobody);
        let right = PasswordHash::new(hash)
            .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok());
        right && known.is_some()
    }
}

/// A line for the users file.
pub(crate) fn line(name: &str, password: &str) -> Result<String, Box<dyn std::error::Error>> {
    if name.is_empty() || name.contains([':', '\n']) {
        return Err("a name is not empty and has no colon".into());
    }
    let hash = Argon2::default().hash_password(password.as_bytes()).map_err(|e| e.to_string())?;
    Ok(format!("{name}:{hash}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_opens_its_own_user_only() {
        let text = format!("# users\n\n{}\n{}\n", line("ada", "one").unwrap(), line("bob", "two").unwrap());
        let users = Users::parse(&text).unwrap();
        assert!(users.check("ada", "one") && users.check("bob", "two"));
        for (name, password) in [("ada", "two"), ("ada", ""), ("eve", "one"), ("eve", "two"), ("", ""), ("ADA", "one")]
        {
            assert!(!users.check(name, password), "{name} {password}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line) in
            [("ada", 1), ("# x\nada:hash", 2), ("ada:$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2hzb21laGFzaA", 1)]
        {
            assert_eq!(Users::parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn the_sample_users_have_the_passwords_of_the_readme() {
        let users = Users::parse(crate::SAMPLE_USERS).unwrap();
        assert!(users.check("ada", "correct horse battery staple") && users.check("grace", "amazing"));
    }
}

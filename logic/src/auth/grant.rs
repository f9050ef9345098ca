//! What a proof allows a client to be, and the client's own wishes held against it.

use proto::Mid;
use proto::token::Token;
use uuid::Uuid;

use super::{Denied, Identity};

/// What a client may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The member it is; 0 and below is anonymous.
    pub mid: Mid,
    /// The key it has; `None` = as a rule any that begins with its mid and a colon.
    pub key: Option<String>,
    /// The rooms it may enter; `None` = any.
    pub rooms: Option<Vec<String>>,
    /// How many connections its member may have; `None` = as logic is set.
    pub connections: Option<usize>,
    /// When it ends, in Unix milliseconds; 0 = never.
    pub expires_ms: u64,
}

impl Grant {
    /// Who the client is that has this grant and says this of itself. A mid of 0, an empty key and an empty room say
    /// nothing.
    ///
    /// # Errors
    /// When it says what the grant does not allow.
    pub fn identity(self, said: Token) -> Result<Identity, Denied> {
        if said.mid != Mid(0) && said.mid != self.mid {
            return Err(Denied::Mid);
        }
        let key = self.key(said.key)?;
        let is_allowed = |rooms: &Vec<String>| said.room_id.is_empty() || rooms.contains(&said.room_id);
        if !self.rooms.as_ref().is_none_or(is_allowed) {
            return Err(Denied::Room);
        }
        Ok(Identity {
            mid: self.mid,
            key: key.into(),
            room: said.room_id.into(),
            accepts: said.accepts,
            rooms: self.rooms,
            connections: self.connections,
            expires_ms: self.expires_ms,
        })
    }

    /// A key names one connection in the whole cluster, and who takes it over is given what is pushed to it. So a
    /// member has keys of its own, `7:…` for member 7. Those without a name share their mid, so theirs are only what was
    /// made up for one of them: to come back with it one has to have been given it.
    fn key(&self, said: String) -> Result<String, Denied> {
        let own = format!("{}:", self.mid);
        match &self.key {
            Some(key) if said.is_empty() || said == *key => Ok(key.clone()),
            Some(_) => Err(Denied::Key),
            None if said.is_empty() => Ok(format!("{own}{}", Uuid::new_v4())),
            None => match said.strip_prefix(&own) {
                Some(rest) if self.mid.0 > 0 || is_made_up(rest) => Ok(said),
                _ => Err(Denied::Key),
            },
        }
    }
}

/// Whether it is written as we write what we make up.
fn is_made_up(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|uuid| uuid.get_version_num() == 4 && uuid.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant { mid: Mid(7), rooms: Some(vec!["a://1".into(), "a://2".into()]), ..Grant::default() }
    }

    fn said(json: &str) -> Token {
        Token::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_client_that_says_nothing_is_given_a_key_of_its_member() {
        let identity = grant().identity(Token::default()).unwrap();
        assert_eq!(identity.mid, Mid(7));
        assert_eq!(identity.key.as_str().strip_prefix("7:").map(str::len), Some(36), "{}", identity.key);
        let guest = Grant::default().identity(Token::default()).unwrap();
        assert!(
            guest.key.as_str().starts_with("0:") && guest.key != Grant::default().identity(said("{}")).unwrap().key
        );
    }

    #[test]
    fn what_the_grant_allows_is_taken_as_the_client_says_it() {
        let body = r#"{"mid":7,"key":"7:phone","room_id":"a://2","accepts":[1000]}"#;
        let identity = grant().identity(said(body)).unwrap();
        assert_eq!(
            (identity.key.as_str(), identity.room.as_str(), &identity.accepts[..]),
            ("7:phone", "a://2", &[1000][..])
        );
        let named = Grant { key: Some("tv".into()), rooms: None, ..grant() };
        for body in [r#"{"key":"tv","room_id":"any"}"#, r#"{"room_id":"any"}"#] {
            assert_eq!(named.clone().identity(said(body)).unwrap().key.as_str(), "tv");
        }
    }

    #[test]
    fn another_mid_key_or_room_is_refused() {
        for mid in ["8", "-7", "77", "-9223372036854775808"] {
            assert_eq!(grant().identity(said(&format!(r#"{{"mid":{mid}}}"#))), Err(Denied::Mid), "{mid}");
        }
        for key in ["phone", "8:phone", "77:phone", "7", "07:phone", " 7:phone", "7\u{ff1a}phone", "-7:phone", ":7:"] {
            let body = serde_json::json!({"mid": 7, "key": key}).to_string();
            assert_eq!(grant().identity(said(&body)), Err(Denied::Key), "{key}");
        }
        let named = Grant { key: Some("tv".into()), ..grant() };
        for key in ["tv2", "TV", "7:phone", "t", "tv\u{0}"] {
            let body = serde_json::json!({"key": key}).to_string();
            assert_eq!(named.clone().identity(said(&body)), Err(Denied::Key), "{key}");
        }
        for room in ["a://3", "a://", "A://1", "a://1 ", "a://12", "*"] {
            let body = serde_json::json!({"room_id": room}).to_string();
            assert_eq!(grant().identity(said(&body)), Err(Denied::Room), "{room}");
        }
        let nowhere = Grant { rooms: Some(vec![]), ..grant() };
        assert_eq!(nowhere.clone().identity(said(r#"{"room_id":"a://1"}"#)), Err(Denied::Room));
        assert!(nowhere.identity(said("{}")).is_ok());
    }

    #[test]
    fn those_without_a_name_come_back_with_what_was_made_up_for_them_and_choose_nothing() {
        for mid in [0, -1] {
            let guest = Grant { mid: Mid(mid), ..Grant::default() };
            let given = guest.clone().identity(Token::default()).unwrap().key;
            let again = Token { key: given.to_string(), ..Token::default() };
            assert_eq!(guest.clone().identity(again).unwrap().key, given);
            let zeros = "00000000-0000-0000-0000-000000000000";
            for chosen in ["1", "", zeros, &given.as_str().to_uppercase()[given.as_str().find(':').unwrap() + 1..]] {
                let chosen = Token { key: format!("{mid}:{chosen}"), ..Token::default() };
                assert_eq!(guest.clone().identity(chosen.clone()), Err(Denied::Key), "{chosen:?}");
            }
        }
    }
}

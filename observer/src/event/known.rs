//! A value that may be missing, and why. Part of the domain event.

use std::{fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

/// A value, or the reason why there is none. Written to JSON as the bare value when it is whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "KnownOf{T}")]
#[serde(untagged)]
pub enum Known<T> {
    /// Only the beginning could be had.
    Partial {
        /// What there is of it.
        partial: T,
        /// How much is missing, in bytes, when that is known.
        missing_bytes: Option<u64>,
    },
    /// There is no value, and this is why.
    Absent {
        /// The reason.
        absent: Absence,
    },
    /// The whole value.
    Is(T),
}

/// Why a value is not there. The four are different facts and stay different in every export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Absence {
    /// It was looked for and could not be read.
    Unknown,
    /// It does not exist (no controlling terminal, a closed descriptor).
    None,
    /// It was sent and lost on the way to us.
    Lost,
    /// This source does not collect it.
    NotCollected,
}

impl<T> Known<T> {
    /// The value when there is one, whole or partial.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Is(value) | Self::Partial { partial: value, .. } => Some(value),
            Self::Absent { .. } => None,
        }
    }

    /// The value to change in place, whole or partial.
    pub fn get_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Is(value) | Self::Partial { partial: value, .. } => Some(value),
            Self::Absent { .. } => None,
        }
    }

    /// A value that could not be read.
    pub const fn unknown() -> Self {
        Self::Absent { absent: Absence::Unknown }
    }

    /// A value that does not exist.
    pub const fn none() -> Self {
        Self::Absent { absent: Absence::None }
    }

    /// A value this source does not collect.
    pub const fn not_collected() -> Self {
        Self::Absent { absent: Absence::NotCollected }
    }
}

/// Read by hand: what serde derives for an untagged enum first copies the whole value, which took half the time of reading a session.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Known<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfKnown(PhantomData))
    }
}

struct OfKnown<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OfKnown<T> {
    type Value = Known<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or why there is none")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Known::Is)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Known::Is)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Known::Is)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Known::Is)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        T::deserialize(value.into_deserializer()).map(Known::Is)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(seq)).map(Known::Is)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Some(key) = map.next_key::<String>()? else {
            return Err(A::Error::invalid_value(Unexpected::Map, &self));
        };
        match key.as_str() {
            "absent" => {
                let absent = map.next_value()?;
                rest(map)?;
                Ok(Known::Absent { absent })
            }
            "partial" | "missing_bytes" => partial(key, map),
            _ => T::deserialize(MapAccessDeserializer::new(Again { key: Some(key), map })).map(Known::Is),
        }
    }
}

/// The rest of a partial value; its fields come in any order.
fn partial<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    first: String,
    mut map: A,
) -> Result<Known<T>, A::Error> {
    let (mut partial, mut missing_bytes) = (None, None);
    let mut key = Some(first);
    while let Some(name) = key {
        match name.as_str() {
            "partial" => partial = Some(map.next_value()?),
            "missing_bytes" => missing_bytes = map.next_value()?,
            _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
        }
        key = map.next_key()?;
    }
    partial
        .map(|partial| Known::Partial { partial, missing_bytes })
        .ok_or_else(|| A::Error::missing_field("partial"))
}

fn rest<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?.is_some() {}
    Ok(())
}

/// A map whose first key was read already.
struct Again<A> {
    key: Option<String>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Again<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.key.take() {
            Some(key) => seed.deserialize(key.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::event::{Address, Limit};

    fn comes_back<T: Serialize + DeserializeOwned + Debug + PartialEq>(value: Known<T>) {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<Known<T>>(&json).unwrap(), value, "{json}");
        // As part of something that serde has copied first.
        let copied: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::from_value::<Known<T>>(copied).unwrap(), value, "{json}");
    }

    #[test]
    fn every_form_comes_back_as_it_was() {
        comes_back(Known::Is("text".to_owned()));
        comes_back(Known::Is(18_u32));
        comes_back(Known::Is(vec!["a".to_owned(), "b".to_owned()]));
        comes_back(Known::Is(Address::Inet { ip: std::net::Ipv4Addr::LOCALHOST.into(), port: 5672 }));
        comes_back(Known::Is(vec![Limit { name: "NOFILE".to_owned(), soft: None, hard: Some(7) }]));
        comes_back(Known::Partial { partial: "te".to_owned(), missing_bytes: Some(2) });
        comes_back(Known::Partial { partial: vec!["a".to_owned()], missing_bytes: None });
        for absent in [Absence::Unknown, Absence::None, Absence::Lost, Absence::NotCollected] {
            comes_back(Known::<String>::Absent { absent });
            comes_back(Known::<Address>::Absent { absent });
        }
        assert!(serde_json::from_str::<Known<String>>("{}").is_err());
        assert!(serde_json::from_str::<Known<String>>("7").is_err());
    }
}

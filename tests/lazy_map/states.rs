//! The states: the same map, lazy, plain, and lazy only on its way to the store.

use abide::collections::{LazyMap, NotLoaded};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(crate) trait Shelf:
    Clone + Default + Serialize + DeserializeOwned + Send + Sync + 'static
{
    fn get(&self, key: u64) -> Result<Option<&String>, NotLoaded>;
    fn load(&self, keys: &[u64]) -> Result<(), NotLoaded>;
    fn page(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, NotLoaded>;
    fn put(&mut self, key: u64, text: String);
    fn append(&mut self, key: u64, text: &str) -> Result<String, NotLoaded>;
    fn remove(&mut self, key: u64);
    fn take(&mut self, key: u64) -> Result<Option<String>, NotLoaded>;
    fn clear(&mut self);
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LazyShelf {
    turns: u64,
    texts: LazyMap<u64, String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct PlainShelf {
    turns: u64,
    texts: BTreeMap<u64, String>,
}

/// Makes a plain map of a lazy one, and so needs all of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "LazyShelf", into = "LazyShelf")]
pub(crate) struct ConvertedShelf(PlainShelf);

impl From<LazyShelf> for ConvertedShelf {
    fn from(shelf: LazyShelf) -> Self {
        let texts = shelf.texts.in_memory();
        Self(PlainShelf {
            turns: shelf.turns,
            texts: texts.map(|(key, text)| (*key, text.clone())).collect(),
        })
    }
}

impl From<ConvertedShelf> for LazyShelf {
    fn from(ConvertedShelf(shelf): ConvertedShelf) -> Self {
        Self {
            turns: shelf.turns,
            texts: shelf.texts.into(),
        }
    }
}

impl Shelf for LazyShelf {
    fn get(&self, key: u64) -> Result<Option<&String>, NotLoaded> {
        self.texts.get(&key)
    }

    fn load(&self, keys: &[u64]) -> Result<(), NotLoaded> {
        self.texts.load(keys)
    }

    fn page(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, NotLoaded> {
        let page = self.texts.range::<u64, _>(from.., limit)?;
        Ok(page
            .into_iter()
            .map(|(key, text)| (*key, text.clone()))
            .collect())
    }

    fn put(&mut self, key: u64, text: String) {
        self.texts.insert(key, text);
    }

    fn append(&mut self, key: u64, text: &str) -> Result<String, NotLoaded> {
        self.turns += 1;
        let entry = self.texts.entry(key, String::new)?;
        entry.push_str(text);
        Ok(entry.clone())
    }

    fn remove(&mut self, key: u64) {
        self.texts.remove(&key);
    }

    fn take(&mut self, key: u64) -> Result<Option<String>, NotLoaded> {
        self.texts.take(&key)
    }

    fn clear(&mut self) {
        self.texts.clear();
    }
}

impl Shelf for PlainShelf {
    fn get(&self, key: u64) -> Result<Option<&String>, NotLoaded> {
        Ok(self.texts.get(&key))
    }

    fn load(&self, _: &[u64]) -> Result<(), NotLoaded> {
        Ok(())
    }

    fn page(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, NotLoaded> {
        let page = self.texts.range(from..).take(limit);
        Ok(page.map(|(key, text)| (*key, text.clone())).collect())
    }

    fn put(&mut self, key: u64, text: String) {
        self.texts.insert(key, text);
    }

    fn append(&mut self, key: u64, text: &str) -> Result<String, NotLoaded> {
        self.turns += 1;
        let entry = self.texts.entry(key).or_default();
        entry.push_str(text);
        Ok(entry.clone())
    }

    fn remove(&mut self, key: u64) {
        self.texts.remove(&key);
    }

    fn take(&mut self, key: u64) -> Result<Option<String>, NotLoaded> {
        Ok(self.texts.remove(&key))
    }

    fn clear(&mut self) {
        self.texts.clear();
    }
}

impl Shelf for ConvertedShelf {
    fn get(&self, key: u64) -> Result<Option<&String>, NotLoaded> {
        self.0.get(key)
    }

    fn load(&self, keys: &[u64]) -> Result<(), NotLoaded> {
        self.0.load(keys)
    }

    fn page(&self, from: u64, limit: usize) -> Result<Vec<(u64, String)>, NotLoaded> {
        self.0.page(from, limit)
    }

    fn put(&mut self, key: u64, text: String) {
        self.0.put(key, text);
    }

    fn append(&mut self, key: u64, text: &str) -> Result<String, NotLoaded> {
        self.0.append(key, text)
    }

    fn remove(&mut self, key: u64) {
        self.0.remove(key);
    }

    fn take(&mut self, key: u64) -> Result<Option<String>, NotLoaded> {
        self.0.take(key)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

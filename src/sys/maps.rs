// SPDX-License-Identifier: MPL-2.0
//! /proc/self/maps: the file that is mapped at an address.

use std::path::PathBuf;

/// A mapped file. Two are equal if they are the same file, whatever their paths.
#[derive(Debug, Clone)]
pub struct MappedFile {
    dev_inode: (String, u64),
    /// The path as the kernel reports it.
    pub path: PathBuf,
}

impl PartialEq for MappedFile {
    fn eq(&self, other: &Self) -> bool {
        self.dev_inode == other.dev_inode
    }
}

/// The file mapped at this address of the process.
pub fn file_at(address: usize) -> Option<MappedFile> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| parse(line, address)?)
}

/// `None` for a line that is no mapping of the address. `Some(None)` for memory without a file.
fn parse(line: &str, address: usize) -> Option<Option<MappedFile>> {
    // start-end perms offset dev inode, blanks, path
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    if !(number(start)?..number(end)?).contains(&address) {
        return None;
    }
    let dev = words.nth(2)?.to_owned();
    let inode = words.next()?.parse().ok()?;
    let path = words.next()?.trim_start();
    Some(path.starts_with('/').then(|| MappedFile {
        dev_inode: (dev, inode),
        path: path.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_in_the_program_and_the_heap_in_no_file() {
        let code = file_at(code_is_in_the_program_and_the_heap_in_no_file as *const () as usize);
        assert_eq!(code.unwrap().path, std::env::current_exe().unwrap());
        let heap = Box::new(0u8);
        assert!(file_at(&raw const *heap as usize).is_none());
    }

    #[test]
    fn a_path_may_have_blanks() {
        let line = "7f00-7f10 r-xp 00001000 fe:01 123                        /opt/my plugins/a.so";
        let file = parse(line, 0x7f0f).flatten().unwrap();
        assert_eq!(file.path, PathBuf::from("/opt/my plugins/a.so"));
        assert_eq!(file.dev_inode, ("fe:01".to_owned(), 123));
        assert!(parse(line, 0x7f10).is_none());
    }
}

// SPDX-License-Identifier: MPL-2.0
//! The manual pages of the programs, which are made of their command lines.

/// Asserts that `tools/NAME.1` is what `command` says. PHYSMEM_UPDATE=1 writes the page, as for other
/// generated files of this repository.
#[track_caller]
pub fn is_up_to_date(command: clap::Command) {
    let path = format!("{}/{}.1", env!("CARGO_MANIFEST_DIR"), command.get_name());
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).unwrap();
    // The only text after the options, which clap_mangen gives a heading for anything.
    let page = String::from_utf8(page).unwrap();
    let page = page.replace(".SH EXTRA\nExit status:\n", ".SH \"EXIT STATUS\"\n");
    if std::env::var_os("PHYSMEM_UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == page,
        "{path} is old: tests/generate man makes it"
    );
}

//! Searches what a whole test run left behind for the secrets that it planted; ends with 1, and says where, when it finds
//! one or when the search could show nothing.

fn main() -> anyhow::Result<()> {
    println!("{}", e2e::planted::search(&e2e::artefacts::folder()?)?);
    Ok(())
}

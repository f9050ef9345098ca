use super::*;

#[test]
fn print_temporarily() {
    std::fs::write("../crds/imcluster.yaml", yaml()).unwrap();
    std::fs::write("../docs/imcluster.md", crate::reference::page()).unwrap();
}

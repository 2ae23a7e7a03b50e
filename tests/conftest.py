"Fixtures that several test files share."
import os
from pathlib import Path
import pytest

@pytest.fixture
def sample_data():
    "`sample_data(name)`: folder of a sample data set, in $SSD_NB_DATA or in ../shared/data beside the checkout; skips where there is none."
    def find(name: str) -> Path:
        root = Path(os.environ.get('SSD_NB_DATA') or Path(__file__).resolve().parents[2]/'shared'/'data')
        if not (root/name).is_dir(): pytest.skip(f'no sample data {name}: set SSD_NB_DATA to a folder that holds {name}/')
        return root/name
    return find

"""A VIA 3 project as the program saves it, for tests of what reads it."""


def via3_project(**metadata: dict) -> dict:
    """A project of two films, one of them inside the file, with these regions by key."""
    return {
        "project": {"pname": "p", "vid_list": ["1", "2"]},
        "config": {"file": {"loc_prefix": {"1": "", "3": "films/"}}},
        "attribute": {
            "1": {"aname": "structure", "type": 4, "options": {"0": "cage", "1": "screw"}},
            "2": {"aname": "level", "type": 1, "options": {}},
            "3": {"aname": "seen", "type": 2, "options": {"0": "yes", "1": "no"}},
        },
        "file": {
            "1": {"fid": "1", "fname": "a.png", "type": 2, "loc": 3, "src": "a.png"},
            "2": {"fid": "2", "fname": "b.png", "type": 2, "loc": 4, "src": "data:,b"},
        },
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}, "3": {"fid_list": [1, 2]}},
        "metadata": metadata,
    }

"""``python -m yolo_dyn`` is the `yolo-dyn` command."""

import sys

from yolo_dyn.cli import main

sys.exit(main())

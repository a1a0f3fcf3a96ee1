from yolo_dyn.robustness.sweep import robustness
from pathlib import Path
def test_try(detectors, tmp_path):
    import os; os.chdir('/tmp/tryfr')
    s = robustness([str(detectors/'a.pt'), str(detectors/'b.pt')], str(detectors/'data.yaml'), sigma=[0,25,50], front=['bilateral','median','nlm:oracle'], imgsz=192, batch=5, device='cpu', threads=1, resamples=200, name='x')
    print(s)
    s = robustness([str(detectors/'a.pt'), str(detectors/'b.pt')], str(detectors/'data.yaml'), sigma=[0,25,50],  imgsz=192, batch=5, device='cpu', threads=1, resamples=200, name='x')
    print(s.others)

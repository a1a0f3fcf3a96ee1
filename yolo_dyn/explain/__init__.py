"""What a network looks at: Grad-CAM++ of detectors and classifiers, the points that A2D2C samples, what experts do."""

"""What holds against people who mean harm, or have been shut out, on one worker and on several."""

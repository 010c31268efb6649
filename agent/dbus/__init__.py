"""Layer 5, faces: org.appliance1 on the system bus. The XML files beside this are the interface, described
in prose."""

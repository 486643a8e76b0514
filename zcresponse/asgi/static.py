static_app = None
